"""Compression for all packagers: codecs, their output, and their share of the processors."""
