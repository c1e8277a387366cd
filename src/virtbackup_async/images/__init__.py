"""Disk images as files: extents, streams, digests, sparse copies, and QEMU's image tool."""
