"""The ``clean`` command: retention, killed backups, stray files, and the space they took."""
