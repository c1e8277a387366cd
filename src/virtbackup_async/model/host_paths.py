"""Every place of a domain's XML that names a path of the host, and its meaning for a backup.

::

    DISK     an image, or the way by which QEMU reaches it model/domain_xml.py
    STATE    the domain's state outside its disks          model/domain_state.py: copied, restored
    DATA     data that a guest stores elsewhere            ``unsaved`` names it in each backup
    NEEDED   a file that the host provides to the guest    ``needed``: ``doctor`` reports it
    OWN      QEMU makes it, or writes to it                nothing in it is the guest's
    SHARED   several guests use it, or one after another   nothing in it is the guest's
    HOST     a program, a device or a service              nothing to save; every domain may use it

A second domain next to the original keeps none of the paths that it would write to: model/twin.py.
A test walks libvirt's schema, and looks every place that can contain a path up in ``PLACES``. Pure.
Source: libvirt's docs/formatdomain.html and its domaincommon.rng.
"""

from collections.abc import Iterator
from enum import StrEnum
from fnmatch import fnmatchcase

from lxml import etree

from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import SkippedDisk


class Meaning(StrEnum):
    """The meaning of a path for a backup; the module's docstring lists the consequences."""

    DISK = "disk"
    STATE = "state"
    DATA = "data"
    NEEDED = "needed"
    OWN = "own"
    SHARED = "shared"
    HOST = "host"


PLACES = {
    "devices/disk/*": Meaning.DISK,
    "os/nvram": Meaning.STATE,
    "os/nvram/source*": Meaning.STATE,
    "os/nvram@template": Meaning.HOST,
    "os/varstore@path": Meaning.STATE,
    "os/varstore@template": Meaning.HOST,
    "devices/tpm/backend/source@path": Meaning.STATE,
    "devices/tpm/backend/device@path": Meaning.STATE,
    "devices/pstore/path": Meaning.STATE,
    "devices/memory/source/path": Meaning.DATA,
    "devices/filesystem/source@*": Meaning.DATA,
    "devices/hostdev/source/block": Meaning.DATA,
    "os/kernel": Meaning.NEEDED,
    "os/initrd": Meaning.NEEDED,
    "os/dtb": Meaning.NEEDED,
    "os/shim": Meaning.NEEDED,
    "os/acpi/table": Meaning.NEEDED,
    "devices/hostdev/rom@file": Meaning.NEEDED,
    "devices/interface/rom@file": Meaning.NEEDED,
    "devices/smartcard/database": Meaning.NEEDED,
    "sysinfo/entry@file": Meaning.NEEDED,
    "devices/audio@path": Meaning.OWN,
    "devices/channel/source@path": Meaning.OWN,
    "devices/console/source@path": Meaning.OWN,
    "devices/parallel/source@path": Meaning.OWN,
    "devices/redirdev/source@path": Meaning.OWN,
    "devices/serial/source@path": Meaning.OWN,
    "devices/smartcard/source@path": Meaning.OWN,
    "devices/rng/backend/source@path": Meaning.OWN,
    "devices/*/log@file": Meaning.OWN,
    "devices/interface/backend@logFile": Meaning.OWN,
    "devices/interface/source@path": Meaning.OWN,
    "devices/graphics@socket": Meaning.OWN,
    "devices/graphics/listen@socket": Meaning.OWN,
    "devices/lease/target@path": Meaning.SHARED,
    "devices/shmem/server@path": Meaning.SHARED,
    "blkiotune/device/path": Meaning.HOST,
    "bootloader": Meaning.HOST,
    "devices/audio/input@dev": Meaning.HOST,
    "devices/audio/output@dev": Meaning.HOST,
    "devices/audio@runtimeDir": Meaning.HOST,
    "devices/console@tty": Meaning.HOST,
    "devices/parallel@tty": Meaning.HOST,
    "devices/serial@tty": Meaning.HOST,
    "devices/emulator": Meaning.HOST,
    "devices/filesystem/binary@path": Meaning.HOST,
    "devices/graphics/gl@rendernode": Meaning.HOST,
    "devices/graphics@xauth": Meaning.HOST,
    "devices/hostdev/source/char": Meaning.HOST,
    "devices/hostdev/source/interface": Meaning.HOST,
    "devices/input/source@dev": Meaning.HOST,
    "devices/input/source@evdev": Meaning.HOST,
    "devices/interface/backend@tap": Meaning.HOST,
    "devices/interface/backend@vhost": Meaning.HOST,
    "devices/interface/downscript@path": Meaning.HOST,
    "devices/interface/guest@actual": Meaning.HOST,
    "devices/interface/guest@dev": Meaning.HOST,
    "devices/interface/portForward@dev": Meaning.HOST,
    "devices/interface/script@path": Meaning.HOST,
    "devices/interface/source@dev": Meaning.HOST,
    "devices/interface/source@name": Meaning.HOST,
    "devices/interface/source@portgroup": Meaning.HOST,
    "devices/interface/target@dev": Meaning.HOST,
    "devices/rng/backend": Meaning.HOST,
    "devices/video/model/acceleration@rendernode": Meaning.HOST,
    "launchSecurity/quoteGenerationService@path": Meaning.HOST,
    "os/loader": Meaning.HOST,
    "resource/partition": Meaning.HOST,
    # Of other hypervisors: containers, Xen, VMware.
    "datacenterpath": Meaning.HOST,
    "devices/filesystem/target@dir": Meaning.HOST,
    "os/init": Meaning.HOST,
    "os/initdir": Meaning.HOST,
    "os/root": Meaning.HOST,
}
"""Meanings by place: ``element/element@attribute`` below ``<domain>``; ``*`` matches anything."""

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_READ_ONLY_OPTIONS = ("-fw_cfg", "-kernel", "-initrd", "-dtb", "-acpitable", "-bios", "-smbios")
_PERSISTENT_MEMORY = {"nvdimm": "nvdimm", "virtio-pmem": "virtiopmem"}
_NEEDED_PATHS = tuple(place for place, meaning in PLACES.items() if meaning is Meaning.NEEDED)


def meaning_of(place: str) -> Meaning | None:
    """Return the meaning of a path in this place; None for an unknown place."""
    found = (meaning for known, meaning in PLACES.items() if fnmatchcase(place, known))
    return next(found, None)


def unsaved(xml: str) -> tuple[SkippedDisk, ...]:
    """Return the devices, by libvirt's alias, whose data is not on a disk and in no backup.

    Raises:
        DefinitionError: the XML cannot be read.
    """
    root = domain_xml.parse(xml)
    found = (*_memories(root), *_shares(root), *_host_devices(root), *_command_line(root))
    return tuple(SkippedDisk(name, reason) for name, _, reason in found)


def needed(xml: str) -> tuple[str, ...]:
    """Return the files that the host provides to a domain, and that are in no backup.

    Raises:
        DefinitionError: the XML cannot be read.
    """
    root = domain_xml.parse(xml)
    paths = []
    for place in _NEEDED_PATHS:
        path, _, attribute = place.partition("@")
        for element in root.iterfind(path):
            text = element.get(attribute) if attribute else element.text
            if text and text.strip().startswith("/"):
                paths.append(text.strip())
    return tuple(dict.fromkeys(paths))


def storing_devices(root: etree._Element) -> Iterator[tuple[str, etree._Element, str]]:
    """Yield the devices other than disks that store data: alias, element, why it is not saved."""
    yield from _memories(root)
    yield from _shares(root)
    yield from _host_devices(root)


def _memories(root: etree._Element) -> Iterator[tuple[str, etree._Element, str]]:
    numbers = dict.fromkeys(_PERSISTENT_MEMORY, 0)
    for memory in root.iterfind("devices/memory"):
        model = memory.get("model", "")
        if model in numbers:
            name = f"{_PERSISTENT_MEMORY[model]}{numbers[model]}"
            numbers[model] += 1
            yield name, memory, f"persistent memory in {memory.findtext('source/path')}"


def _shares(root: etree._Element) -> Iterator[tuple[str, etree._Element, str]]:
    for number, share in enumerate(root.iterfind("devices/filesystem")):
        source = share.find("source")
        if source is not None and share.get("type", "mount") != "ram":
            where = next(iter(source.attrib.values()), "its source")
            yield f"fs{number}", share, f"a file system of the host, {where}"


def _host_devices(root: etree._Element) -> Iterator[tuple[str, etree._Element, str]]:
    for number, device in enumerate(root.iterfind("devices/hostdev")):
        yield f"hostdev{number}", device, f"a {device.get('type', 'host')} device of the host"


def _command_line(root: etree._Element) -> Iterator[tuple[str, etree._Element, str]]:
    for element in root.iterfind(f"{QEMU}commandline"):
        words = written_words(element)
        if words:
            reason = f"QEMU's own arguments name {', '.join(words)}, which is not looked at"
            yield "qemu:commandline", element, reason


def written_words(command_line: etree._Element) -> tuple[str, ...]:
    """Return the arguments of QEMU that name paths to which it might write."""
    words = [arg.get("value", "") for arg in command_line.iterfind(f"{QEMU}arg")]
    return tuple(
        word
        for option, word in zip(["", *words], words, strict=False)
        if (word.startswith("/") or "=/" in word) and option not in _READ_ONLY_OPTIONS
    )
