"""What serves the domains: which programs, of which versions."""

from msgspec import Struct

Version = tuple[int, int, int]


class HostVersions(Struct, frozen=True):
    """The versions on the other side of a connection; ``driver`` is libvirt's word: ``QEMU``."""

    driver: str
    libvirt: Version
    hypervisor: Version
