"""A domain's state outside its disks: its UEFI variables, the state of its TPM, pstore.

::

    <os><nvram>/nvram/web.fd</nvram>                     one file
    <os><nvram type='file'><source file='...'/>          the same, as newer libvirt writes it
    <os><varstore path='/nvram/web.json'/>               UEFI variables too, from libvirt 12.1 on
    <pstore><path>/nvram/web.raw</path>                  the guest kernel's messages of a crash
    <tpm><backend type='emulator'/>                      SWTPM/<uuid>/tpm2/, or tpm1.2/
    <tpm><backend type='emulator'><source type='dir'>    a directory that the admin chose
    <tpm><backend type='emulator'><source type='file'>   one file

Backup and restore both find the places here. Pure. Source: libvirt's docs/formatdomain.html,
"BIOS bootloader" and "TPM device". The connection knows the path of SWTPM
(hypervisor/read_domain.py).
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from lxml import etree
from msgspec import Struct

from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import NVRAM, PSTORE, TPM, VARSTORE
from virtbackup_async.model.domain import DomainInfo

LABELS = {
    NVRAM: "the UEFI variables (NVRAM)",
    VARSTORE: "the UEFI variables (varstore)",
    PSTORE: "what the guest's kernel said as it crashed (pstore)",
    TPM: "the state of the TPM",
}
UEFI_VARIABLES = (NVRAM, VARSTORE)


class StatePlace(Struct, frozen=True):
    """The place of a part of a domain's state.

    Attributes:
        kind: one of ``LABELS``.
        path: a file, or a directory whose files are the state; None if it cannot be reached.
        reason: why there is no path.
        format: of the file.
    """

    kind: str
    path: Path | None
    reason: str = ""
    is_directory: bool = False
    format: str = "raw"


def state_places(info: DomainInfo) -> tuple[StatePlace, ...]:
    """Return the places of a domain's state; none for a domain with a BIOS and no TPM.

    Raises:
        DefinitionError: the XML cannot be read.
    """
    root = domain_xml.parse(info.xml)
    return tuple(place for kind in LABELS for _, place in _named(root, kind, info))


def set_variables(root: etree._Element, path: Path | None) -> None:
    """Put a domain's UEFI variables into ``path``; with None, libvirt creates new ones.

    It names their file after the domain, and fills it from the firmware's template.
    """
    for element in root.findall("os/nvram"):
        _set_nvram(element, path)
    for element in root.findall("os/varstore"):
        if path is not None:
            element.set("path", str(path))
        elif "path" in element.attrib:
            del element.attrib["path"]


def is_libvirts_own(place: StatePlace, info: DomainInfo) -> bool:
    """Return whether libvirt itself keeps such state there, whatever the domain's XML says."""
    if place.path is None:
        return False
    if place.is_directory:
        tpms = info.swtpm_directory
        return tpms is not None and _is_in(place.path, (tpms / info.uuid,))
    return _is_in(place.path, info.state_directories)


def bring_home(
    root: etree._Element, own: Collection[Path], held: Mapping[str, Path]
) -> tuple[str, ...]:
    """Put restored state where libvirt keeps it, or else where the restore wrote it.

    The author of the XML must not choose the place, because root creates files there.

    Args:
        root: the domain, which is changed.
        own: the directories in which libvirt keeps such files.
        held: the restored files that the domain is to use, by kind of state.

    Returns:
        a line for each kind of state whose place was another one.
    """
    moved = []
    for kind, file in held.items():
        for element, place in _named(root, kind):
            path = place.path
            if path is None or (not place.is_directory and _is_in(path, own)):
                continue
            label = LABELS[kind]
            if place.is_directory:
                _remove_sources(element)
                moved.append(f"{label}: libvirt keeps it in a place of its own, not in {path}")
            else:
                _set_file(element, kind, file)
                moved.append(f"{label}: the domain uses {file}, not {path}")
    return tuple(moved)


def leave_to_libvirt(root: etree._Element) -> None:
    """Let libvirt keep the state of an emulated TPM by the domain's UUID, pstore by its name."""
    for backend in root.findall("devices/tpm/backend[@type='emulator']"):
        _remove_sources(backend)
    for pstore in root.findall("devices/pstore"):
        for path in pstore.findall("path"):
            pstore.remove(path)


def _named(
    root: etree._Element, kind: str, info: DomainInfo | None = None
) -> Iterator[tuple[etree._Element, StatePlace]]:
    """Yield the elements that describe a kind of state, each with the state's place."""
    match kind:
        case "nvram":
            yield from ((element, _nvram(element)) for element in root.iterfind("os/nvram"))
        case "varstore":
            for element in root.iterfind("os/varstore"):
                yield element, _file(VARSTORE, element.get("path"))
        case "pstore":
            for element in root.iterfind("devices/pstore"):
                yield element, _file(PSTORE, element.findtext("path"))
        case "tpm":
            for element in root.iterfind("devices/tpm/backend"):
                yield element, _tpm(element, info)
        case _:
            pass


def _is_in(path: Path, directories: Collection[Path]) -> bool:
    # Nothing deeper: a guest's emulator might own such a directory, and can create links there.
    return path.parent in directories and path.name != ".."


def _set_nvram(element: etree._Element, path: Path | None) -> None:
    _remove_sources(element)
    if "type" in element.attrib:
        del element.attrib["type"]
    element.text = None if path is None else str(path)


def _set_file(element: etree._Element, kind: str, path: Path) -> None:
    match kind:
        case "nvram":
            _set_nvram(element, path)
        case "varstore":
            element.set("path", str(path))
        case "pstore":
            for child in element.iterfind("path"):
                child.text = str(path)
        case _:
            for source in element.iterfind("source"):
                source.set("path", str(path))


def _remove_sources(element: etree._Element) -> None:
    for source in element.findall("source"):
        element.remove(source)


def _nvram(element: etree._Element) -> StatePlace:
    kind = element.get("type", "file")
    source = element.find("source")
    path = (element.text if source is None else source.get("file")) or ""
    if kind != "file":
        return StatePlace(NVRAM, None, f"it is on {kind} storage, only files can be copied")
    return _file(NVRAM, path, element.get("format", "raw"))


def _file(kind: str, path: str | None, format: str = "raw") -> StatePlace:  # noqa: A002 -- QEMU's word
    if not (path or "").strip():
        return StatePlace(kind, None, "the domain's XML does not say where it is")
    return StatePlace(kind, Path((path or "").strip()), format=format)


def _tpm(backend: etree._Element, info: DomainInfo | None) -> StatePlace:
    kind = backend.get("type", "")
    if kind != "emulator":
        return StatePlace(TPM, None, f"the TPM is {kind}, only that of libvirt's emulator is known")
    source = backend.find("source")
    if source is not None:
        return _tpm_source(source)
    if info is None or info.swtpm_directory is None:
        return StatePlace(TPM, None, "it is not known where this libvirt keeps it")
    version = "tpm1.2" if backend.get("version") == "1.2" else "tpm2"
    return StatePlace(TPM, info.swtpm_directory / info.uuid / version, is_directory=True)


def _tpm_source(source: etree._Element) -> StatePlace:
    kind, path = source.get("type", ""), source.get("path")
    if kind not in {"dir", "file"} or not path:
        return StatePlace(TPM, None, f"it is on {kind} storage, only files can be copied")
    return StatePlace(TPM, Path(path), is_directory=kind == "dir")
