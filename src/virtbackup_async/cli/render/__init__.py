"""The renderers: each shows the same events its own way, and none imports another."""
