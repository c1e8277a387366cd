"""The facts about this host for ``init``. ``survey`` collects them; all other code only reads."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from virtbackup_async.events import DomainFound, FileSystemFound
from virtbackup_async.files.mounts import Mount, Place


class Images(Struct, frozen=True):
    """The images of a domain's disks.

    Attributes:
        paths: where they are, with links followed.
        places: what they are stored on.
    """

    paths: tuple[Path, ...] = ()
    places: tuple[Place, ...] = ()


class Site(Struct, frozen=True):
    """This host: its libvirt, the domains and the file systems.

    Attributes:
        uri: the URI by which libvirt was reached.
        images: by domain; none for a domain that could not be inspected.
        mounts: all of them, including those that hold no files.
    """

    uri: str
    domains: tuple[DomainFound, ...] = ()
    file_systems: tuple[FileSystemFound, ...] = ()
    images: Mapping[str, Images] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()

    @property
    def used_bytes(self) -> int:
        """The space that all images take, as far as known: about the bytes of a first backup."""
        return sum(domain.used_bytes or 0 for domain in self.domains)

    def on_file_system_of(self, place: Place) -> tuple[str, ...]:
        """Return the domains that have an image on the same file system."""
        return tuple(
            name
            for name, images in self.images.items()
            if any(place.shares_file_system(other) for other in images.places)
        )

    def on_disk_of(self, place: Place) -> tuple[str, ...]:
        """Return the domains that have an image on the same disk."""
        return tuple(
            name
            for name, images in self.images.items()
            if any(place.shares_disk(other) for other in images.places)
        )
