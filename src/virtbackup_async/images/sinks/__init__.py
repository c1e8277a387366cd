"""Sinks of a disk stream: a sparse file, an image written in order, a pipe."""
