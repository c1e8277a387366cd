"""Packages that are tar archives, plain or compressed."""
