"""Renderers: each shows the same events in its own way."""
