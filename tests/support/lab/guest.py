"""Builds the lab's guest: a kernel and a small initramfs that boots in about three seconds.

::

    CACHE/guest-<key>/kernel           bzImage
    CACHE/guest-<key>/initramfs        gzipped cpio: busybox, qemu-ga and its libraries,
                                       modules/<name>.ko, modules/order, init, sbin/shutdown

``build()`` is all that others call. The key is a digest of what decides the content, so an edited
init script makes another guest. A finished directory never changes: it is built beside its place
and renamed there, under a lock that keeps two processes from building the same twice.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.ingredients import Ingredients, gather
from lab.modules import closure
from lab.process import LabError, run

_HERE = Path(__file__).parent
_RECIPE = ("guest.py", "ingredients.py", "modules.py", "guest_init.sh", "guest_shutdown.sh")

_failures: list[LabError] = []


@dataclass(frozen=True)
class Guest:
    """What a domain boots: two files, read by QEMU, never written."""

    kernel: Path
    initramfs: Path


def cache_root() -> Path:
    """The directory of all that the lab keeps from run to run."""
    default = Path.home() / ".cache/virtbackup-async/lab"
    return Path(os.environ.get("VIRTBACKUP_CACHE") or default)


def build() -> Guest:
    """Return the guest, built if this machine has not built it before (a few seconds).

    What failed once fails at once in the same process: each try fetches packages.

    Raises:
        LabError: a package or a tool is missing.
    """
    for failure in _failures:
        raise failure
    try:
        return _built()
    except LabError as error:
        _failures.append(error)
        raise


def _built() -> Guest:
    root = cache_root()
    place = root / f"guest-{_key()}"
    if not place.exists():
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / "guest.lock"):
            if not place.exists():
                _build_at(place)
    return Guest(place / "kernel", place / "initramfs")


def _key() -> str:
    digest = hashlib.sha256(Path("/etc/os-release").read_bytes())
    for name in _RECIPE:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_at(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=place.parent) as temporary:
        workspace = Path(temporary)
        ingredients = gather(workspace)
        tree = workspace / "initramfs.d"
        _fill(tree, ingredients)
        built = workspace / "guest"
        built.mkdir()
        shutil.copyfile(ingredients.kernel, built / "kernel")
        _pack(tree, built / "initramfs")
        built.rename(place)


def _fill(tree: Path, ingredients: Ingredients) -> None:
    _install(ingredients.busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    _install(ingredients.agent, tree / "bin/qemu-ga")
    for library in _libraries(ingredients.agent):
        _install(library, tree / library.relative_to("/"))
    _install(_HERE / "guest_init.sh", tree / "init")
    _install(_HERE / "guest_shutdown.sh", tree / "sbin/shutdown")
    modules = closure(ingredients.modules)
    (tree / "modules").mkdir()
    for name, content in modules:
        (tree / "modules" / name).write_bytes(content)
    (tree / "modules/order").write_text("".join(f"{name}\n" for name, _ in modules))


def _install(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(stat.S_IRWXU)


def _libraries(program: Path) -> list[Path]:
    """The shared libraries a program loads, and the loader itself, where the program seeks them."""
    told = run("ldd", program)
    missing = re.findall(r"(\S+) => not found", told)
    if missing:
        raise LabError(f"{program.name} needs {', '.join(missing)}, which this host has not")
    return [Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+)", told, re.MULTILINE)]


def _pack(tree: Path, archive: Path) -> None:
    # Reproducible enough for a cache; -R makes all of it root's, whoever builds.
    script = 'cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 >"$2"'
    run("sh", "-ec", script, "pack", tree, archive)
