"""The way back: overlays, pull jobs and checkpoints of a backup that did not end by itself."""
