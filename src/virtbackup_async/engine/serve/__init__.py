"""The ``serve`` command: the disks of a backup over NBD, as a guest sees them."""
