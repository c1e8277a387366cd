"""Sources of a disk stream: an image file, or an NBD export."""
