"""Removes chunks that no map needs, and gives their space back."""
