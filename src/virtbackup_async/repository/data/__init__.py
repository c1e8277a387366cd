"""Reads and writes chunks and maps."""
