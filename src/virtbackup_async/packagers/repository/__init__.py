"""Packages whose chunks are stored in the target's repository."""
