"""How much a repository holds, and for whom."""
