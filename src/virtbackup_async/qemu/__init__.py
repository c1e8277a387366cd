"""QEMU's tools and its image format: ``qemu-img``, ``qemu-nbd``, qcow2."""
