"""A store of chunks in which equal data lies once, shared by all backups of a target."""
