"""The machine that has the domains' images: its files, and QEMU's tools there."""
