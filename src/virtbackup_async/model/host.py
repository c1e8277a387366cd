"""What serves the domains: which programs, of which versions."""

from dataclasses import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class HostVersions:
    """The versions on the other side of a connection; ``driver`` is libvirt's word: ``QEMU``."""

    driver: str
    libvirt: Version
    hypervisor: Version
