"""Whether backups are still what was recorded, and the ``repair`` of those that are not."""
