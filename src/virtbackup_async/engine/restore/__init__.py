"""Backups on their way out: into a directory, in place, or as one exported image."""
