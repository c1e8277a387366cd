"""Packages with one zstd frame for each disk."""
