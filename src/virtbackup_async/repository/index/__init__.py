"""Which chunk is where: segments on disk, and lookups of many ids at once."""
