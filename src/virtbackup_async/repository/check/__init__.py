"""Whether a repository holds what its maps need, and the repair of one that does not."""
