"""The bytes of a repository's files: pure, without input or output."""
