"""Checks a repository against its maps, and repairs it."""
