"""The index: which chunk is where, and lookups of many ids at once."""
