"""Packages of one zstd frame a disk."""
