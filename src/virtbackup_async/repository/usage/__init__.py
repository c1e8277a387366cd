"""How much space a repository takes, and for which backups."""
