"""The commands: what each of them does, reported as events."""
