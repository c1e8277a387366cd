"""Where a disk stream comes from: an image file, or an NBD export."""
