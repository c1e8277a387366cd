"""Finds the kernel modules the guest needs, and the order to load them in.

``guest.py`` calls it with an unpacked kernel package or the host's own tree. It reads what each
module says of itself (``depends=`` in its .modinfo section), so that neither depmod nor kmod is
needed, and no modules.dep: an unpacked package has none.
"""

import lzma
import re
from pathlib import Path

import zstandard

from lab.process import LabError

# What the guest asks for; a driver that is built into the kernel is no file, and skipped.
WANTED = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "virtio_console",
    "crc32c_generic",
    "ext4",
    "evdev",
    "button",
)
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def closure(tree: Path) -> list[tuple[str, bytes]]:
    """The wanted modules and all below them, as (file name, content), in load order.

    Args:
        tree: ``/lib/modules/<release>`` of the kernel.
    """
    files = {_name(path): path for path in (tree / "kernel").rglob("*.ko*")}
    built_in = {_name(Path(line)) for line in _lines(tree / "modules.builtin")}
    found: dict[str, bytes] = {}
    for name in WANTED:
        _add(name, files, built_in, found)
    return [(f"{name}.ko", content) for name, content in found.items()]


def _add(name: str, files: dict[str, Path], built_in: set[str], found: dict[str, bytes]) -> None:
    if name in found or (name in built_in and name not in files):
        return
    if name not in files:
        # crc32c_generic went away in newer kernels: the library has it then.
        if name in {"crc32c_generic", "button", "evdev"}:
            return
        raise LabError(f"the kernel has no module {name}: install its full module package")
    content = _read(files[name])
    depends = _DEPENDS.search(b"\0" + content)
    for below in depends.group(1).decode().split(",") if depends else ():
        if below:
            _add(below.replace("-", "_"), files, built_in, found)
    found[name] = content


def _name(path: Path) -> str:
    """``virtio-rng.ko.xz`` -> ``virtio_rng``: the kernel takes both spellings for the same."""
    return path.name.split(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content
