"""What a target holds: names, definition and pending files, and the scan that finds them."""
