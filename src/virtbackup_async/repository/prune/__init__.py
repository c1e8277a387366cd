"""Removing chunks that no map needs, and giving their space back."""
