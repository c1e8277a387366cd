"""Which guest a backup is of: its name and its UUID.

Hosts that share a target may have guests of one name, and one host may have had several in turn:
the UUID tells them apart, and a guest that migrates takes it along. Pure.
"""

from msgspec import Struct

from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.uuids import canonical_uuid


class Guest(Struct, frozen=True):
    """A guest.

    Attributes:
        name: the domain's name.
        uuid: in lower case with dashes; None if a backup does not say it.
    """

    name: str
    uuid: str | None = None


def guest_of(backup: Definition | Pending) -> Guest:
    """Return the guest that a backup is of."""
    return Guest(backup.domain_name, uuid_of(backup))


def uuid_of(backup: Definition | Pending) -> str | None:
    """Return the UUID of the backed-up domain; None if the file has none."""
    found = canonical_uuid(backup.domain_uuid)
    if found is not None or not backup.domain_xml:
        return found
    # Only virt-backup's files need it, and lxml is slow to load.
    from virtbackup_async.model import domain_xml  # noqa: PLC0415 -- see above

    return domain_xml.uuid(backup.domain_xml)
