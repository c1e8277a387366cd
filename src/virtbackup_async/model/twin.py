"""Removes from a second domain each path that it and the original would both write to.

restored_xml.py puts disks and UEFI variables on restored files. This module handles the rest of
``host_paths.PLACES``::

    DATA, SHARED      the device is removed
    OWN               the path is removed, and libvirt makes another one; else the device is removed
    a TPM of the host, or of another program       removed

Pure. Invariant: everything that is removed is reported.
"""

import re
from collections.abc import Iterator

from lxml import etree

from virtbackup_async.model import host_paths

_CHARACTER_DEVICES = ("serial", "parallel", "console", "channel")
_ON_A_PATH = ("file", "pipe", "dev", "unix")
# libvirt's own sockets for channels, which it renews itself.
_BY_LIBVIRT = re.compile(r"/channel/(target/)?([^/]+\.|domain-[^/]+/)")
_UNITS = {"b": 1, "bytes": 1, "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30}
_UNITS |= {"gib": 2**30, "t": 2**40, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_KIB = 1024


def share_nothing(root: etree._Element) -> list[str]:
    """Remove from a domain's XML every path that it and the original would both write to.

    Returns:
        A line for each removal, such as ``fs0: a file system of the host, /srv``.
    """
    return [
        *_without_storing_devices(root),
        *_without_command_line(root),
        *_without_shared_devices(root),
        *_with_own_character_devices(root),
        *_with_own_sockets(root),
        *_without_outputs(root),
    ]


def _without_storing_devices(root: etree._Element) -> Iterator[str]:
    for name, device, what in list(host_paths.storing_devices(root)):
        if device.tag == "filesystem" and device.find("readonly") is not None:
            continue
        if device.tag == "memory":
            _shrink(root, device)
        _remove(device)
        yield f"{name}: {what}"


def _shrink(root: etree._Element, memory: etree._Element) -> None:
    """Subtract a memory device from the domain's total memory, which includes it."""
    total = root.find("memory")
    size = memory.find("target/size")
    if total is not None and size is not None:
        left = _bytes(total) - _bytes(size)
        if left > 0:
            total.set("unit", "KiB")
            total.text = str(left // _KIB)


def _bytes(element: etree._Element) -> int:
    try:
        return int(element.text or "") * _UNITS.get(element.get("unit", "KiB").lower(), _KIB)
    except ValueError:
        return 0


def _without_command_line(root: etree._Element) -> Iterator[str]:
    for element in root.findall(f"{host_paths.QEMU}commandline"):
        words = host_paths.written_words(element)
        if words:
            root.remove(element)
            yield f"qemu:commandline: it names {', '.join(words)}"


def _without_shared_devices(root: etree._Element) -> Iterator[str]:
    for path, what in (
        ("devices/shmem", "memory that it shares"),
        ("devices/lease", "a lease that it holds"),
        ("devices/interface[@type='vhostuser']", "an interface on a socket of its own"),
        ("devices/tpm/backend[@type='passthrough']/..", "the TPM of the host"),
        ("devices/tpm/backend[@type='external']/..", "a TPM of another program"),
    ):
        for device in root.findall(path):
            _remove(device)
            yield f"{device.tag}: {what}"
    for tag in ("redirdev", "smartcard", "rng"):
        for device in root.findall(f"devices/{tag}"):
            backend = device.find("backend")
            kind = (device if backend is None else backend).get("type")
            source = device.find(".//source[@path]")
            if source is not None and kind in _ON_A_PATH:
                _remove(device)
                yield f"{tag}: {source.get('path')}"


def _with_own_character_devices(root: etree._Element) -> Iterator[str]:
    told: set[str] = set()
    for tag in _CHARACTER_DEVICES:
        for number, device in enumerate(root.iterfind(f"devices/{tag}")):
            path = _own_path(device)
            if path is None:
                continue
            if device.get("type") != "unix" or tag != "channel":
                # The type that `virsh console` needs.
                device.set("type", "pty")
            for source in device.findall("source"):
                device.remove(source)
            if path not in told and not _BY_LIBVIRT.search(path):
                told.add(path)  # a console is often the serial device again
                yield f"{tag}{number}: {path}"


def _own_path(device: etree._Element) -> str | None:
    source = device.find("source")
    if source is None or device.get("type") not in _ON_A_PATH:
        return None
    return source.get("path")


def _with_own_sockets(root: etree._Element) -> Iterator[str]:
    for graphics in root.iterfind("devices/graphics"):
        elements = (graphics, *graphics.findall("listen"))
        paths = [_taken(element, "socket") for element in elements]
        if any(paths) and graphics.find("listen") is None:
            # Without this, it would listen on a port.
            etree.SubElement(graphics, "listen", type="socket")
        for path in dict.fromkeys(filter(None, paths)):
            yield f"{graphics.get('type', 'graphics')}: {path}"


def _without_outputs(root: etree._Element) -> Iterator[str]:
    for log in root.findall("devices//log[@file]"):
        _remove(log)
        yield f"log: {log.get('file')}"
    for backend in root.iterfind("devices/interface/backend[@logFile]"):
        yield f"log: {_taken(backend, 'logFile')}"
    for audio in root.iterfind("devices/audio[@type='file']"):
        audio.set("type", "none")
        yield f"audio: {_taken(audio, 'path') or 'a file'}"


def _taken(element: etree._Element, name: str) -> str | None:
    value = element.get(name)
    if value is not None:
        del element.attrib[name]
    return value


def _remove(device: etree._Element) -> None:
    parent = device.getparent()
    if parent is not None:
        parent.remove(device)
