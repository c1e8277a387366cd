"""Chunks and maps, written and read."""
