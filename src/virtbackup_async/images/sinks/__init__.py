"""Where a disk stream goes: a sparse file, an image written in order, a pipe."""
