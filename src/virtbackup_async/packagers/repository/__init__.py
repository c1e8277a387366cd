"""Packages whose chunks lie in the target's repository."""
