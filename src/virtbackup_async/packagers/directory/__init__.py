"""Packages whose images are files of their own, as they are, with their holes."""
