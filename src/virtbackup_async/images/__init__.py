"""Disk images as streams: their sources, sinks, extents and digests."""
