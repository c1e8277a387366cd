"""Plain values that the layers exchange."""
