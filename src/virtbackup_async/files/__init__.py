"""File I/O: durable files, and access below a target that follows no link."""
