"""The ways to lay disk streams down in a target, and to read them back: one module each."""
