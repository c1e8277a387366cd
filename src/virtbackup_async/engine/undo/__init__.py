"""Undo of an unfinished backup: its overlays, its pull job and its checkpoint."""
