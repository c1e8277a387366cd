"""The ``backup`` command: from the configured groups to complete backups."""
