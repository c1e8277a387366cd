"""Where a repository's files lie, who works in it, and which packs are about to go."""
