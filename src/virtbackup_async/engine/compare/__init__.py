"""The ``diff`` command: how much of each disk differs between two backups."""
