"""The ``clean`` command: retention, undo of killed backups, stray files, prune."""
