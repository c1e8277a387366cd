"""The ``clean`` and ``forget`` commands: retention, undo of killed backups, stray files, prune."""
