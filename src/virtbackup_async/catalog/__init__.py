"""The files of a target: definitions, pending files, their names, and the scan that finds them."""
