"""The XML of a restored domain: its disks on the restored images, its identity kept or new.

``restore --define`` hands the outcome to libvirt. What libvirt made up for a running domain (ids,
aliases, backing chains that it found) may stay: it drops that itself when a domain is defined.
Pure. Source: libvirt's docs/formatdomain.html.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lxml import etree
from msgspec import Struct

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model import disk_xml, domain_state, domain_xml, twin
from virtbackup_async.model.domain_state import UEFI_VARIABLES


class RestoredXml(Struct, frozen=True):
    """The XML to define.

    Attributes:
        left_out: disks of the original that a domain of another identity must not share.
        unshared: what else of it it must not: a line each.
        moved: state that is somewhere else than the backup's XML says: a line each.
    """

    xml: str
    name: str
    uuid: str | None
    left_out: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


class StateHome(Struct, frozen=True):
    """Where restored state may be.

    Attributes:
        own: the directories in which libvirt keeps UEFI variables and pstore.
        held: what was restored, by kind: the file in the restore's target.
    """

    own: frozenset[Path] = frozenset()
    held: Mapping[str, Path] = MappingProxyType({})

    @property
    def variables(self) -> Path | None:
        """The restored UEFI variables, of either kind."""
        return next((self.held[kind] for kind in UEFI_VARIABLES if kind in self.held), None)


_NO_STATE: Final = StateHome()


def restored_xml(  # noqa: PLR0913 -- a domain and all that was restored of it, by keyword
    xml: str,
    images: Mapping[str, Path],
    *,
    formats: Mapping[str, str] = MappingProxyType({}),
    below: Mapping[str, Sequence[Path]] = MappingProxyType({}),
    new_name: str | None = None,
    state: StateHome = _NO_STATE,
) -> RestoredXml:
    """Put a domain on its restored images.

    Args:
        xml: as the backup has it.
        images: dev to restored image.
        formats: dev to its format, of images that are not what the XML says.
        below: dev to the restored images below its own, nearest first.
        new_name: gives it an identity of its own: a new UUID and MAC addresses, which libvirt
            makes when they are missing, and no disk or state that it would share with the original.
        state: a domain with a new name has its UEFI variables in the target, or new ones; all other
            state has its place from libvirt. One that keeps its name has state in libvirt's
            directories where its XML says so, what is elsewhere in the target.

    Raises:
        DefinitionError: the XML cannot be read, is of no domain, or lacks one of the disks.
    """
    root = domain_xml.parse(xml)
    if root.tag != "domain":
        raise DefinitionError(f"the backup's XML is of a {root.tag!s:.40}, not of a domain")
    _set_images(root, images, formats, below)
    _renew_generation(root)
    if new_name is None:
        return _result(root, moved=domain_state.bring_home(root, state.own, state.held))
    left_out = _leave_out_shared(root, images)
    _give_identity(root, new_name)
    domain_state.set_variables(root, state.variables)
    domain_state.leave_to_libvirt(root)
    return _result(root, left_out=left_out, unshared=tuple(twin.share_nothing(root)))


def _result(
    root: etree._Element,
    *,
    left_out: tuple[str, ...] = (),
    unshared: tuple[str, ...] = (),
    moved: tuple[str, ...] = (),
) -> RestoredXml:
    name = root.findtext("name")
    if not name:
        raise DefinitionError("the backup's XML has no name of the domain")
    text = etree.tostring(root, encoding="unicode")
    return RestoredXml(text, name, domain_xml.uuid(text), left_out, unshared, moved)


def _set_images(
    root: etree._Element,
    images: Mapping[str, Path],
    formats: Mapping[str, str],
    below: Mapping[str, Sequence[Path]],
) -> None:
    missing = dict(images)
    for disk, dev in _disks(root):
        if dev in missing:
            disk_xml.set_file(disk, missing.pop(dev), formats.get(dev), below.get(dev, ()))
    if missing:
        raise DefinitionError(f"the backup's XML has no disk {', '.join(missing)}")


def _renew_generation(root: etree._Element) -> None:
    """Let libvirt make a new generation id, by which a guest knows that time went backwards."""
    for genid in root.findall("genid"):
        genid.text = None


def _leave_out_shared(root: etree._Element, images: Mapping[str, Path]) -> tuple[str, ...]:
    left_out = []
    for disk, dev in _disks(root):
        is_read_only = disk.get("device") == "cdrom" or disk.find("readonly") is not None
        if dev not in images and not is_read_only:
            parent = disk.getparent()
            if parent is not None:
                parent.remove(disk)
            left_out.append(dev)
    return tuple(left_out)


def _give_identity(root: etree._Element, name: str) -> None:
    for element in root.findall("name"):
        element.text = name
    _remove_all(root, "uuid")
    # SMBIOS shows the guest a UUID too, and libvirt insists that it is the domain's.
    for system in root.findall("sysinfo/system"):
        for entry in system.findall("entry[@name='uuid']"):
            system.remove(entry)
    for interface in root.findall("devices/interface"):
        _remove_all(interface, "mac")


def _disks(root: etree._Element) -> list[tuple[etree._Element, str]]:
    found = []
    for disk in root.findall("devices/disk"):
        target = disk.find("target")
        dev = target.get("dev") if target is not None else None
        if dev:
            found.append((disk, dev))
    return found


def _remove_all(parent: etree._Element, tag: str) -> None:
    for child in parent.findall(tag):
        parent.remove(child)
