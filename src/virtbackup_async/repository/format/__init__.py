"""The bytes of a repository's files: pure, no I/O."""
