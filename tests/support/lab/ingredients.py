"""Where the guest's kernel, busybox and guest agent come from.

Debian and Ubuntu: their packages, fetched with ``apt-get download`` and unpacked, never installed.
Elsewhere: the host's own kernel, busybox and qemu-ga. Called by ``guest.py``; x86_64 only.
"""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.process import LabError, run

_KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64")
_TOOLS = ("busybox-static", "qemu-guest-agent")


@dataclass(frozen=True)
class Ingredients:
    """Files on this machine that the guest is put together from.

    Attributes:
        kernel: a bzImage.
        modules: ``/lib/modules/<release>`` that belongs to it.
        busybox: statically linked.
        agent: qemu-ga, linked to libraries of this host.
    """

    kernel: Path
    modules: Path
    busybox: Path
    agent: Path


def gather(workspace: Path) -> Ingredients:
    """Find or fetch everything; what is fetched is unpacked below ``workspace``.

    Raises:
        LabError: not x86_64, or something is missing; the message names the packages.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the lab's guest is x86_64 only, this machine is {platform.machine()}")
    if shutil.which("apt-get"):
        return _from_packages(workspace)
    return _from_host()


def _from_packages(workspace: Path) -> Ingredients:
    packages = [*_kernel_packages(), *_TOOLS]
    # apt drops its privileges to a user that may not write here; that is only a warning.
    run("apt-get", "download", "-q", *packages, cwd=workspace, timeout_s=600)
    root = workspace / "root"
    for archive in sorted(workspace.glob("*.deb")):
        run("dpkg-deb", "-x", archive, root)
    return Ingredients(
        kernel=_kernel(root),
        modules=_modules(root),
        busybox=_first(root / "bin/busybox", root / "usr/bin/busybox"),
        agent=_first(root / "usr/sbin/qemu-ga", root / "usr/bin/qemu-ga"),
    )


def _kernel_packages() -> list[str]:
    """The versioned packages behind the first kernel meta package that apt knows."""
    for refresh in (False, True):
        if refresh and os.geteuid() == 0:
            run("apt-get", "update", "-q", timeout_s=600)
        for meta in _KERNELS:
            found = _versioned(meta)
            if found:
                return found
    raise LabError(f"apt knows none of {', '.join(_KERNELS)}: run apt-get update as root")


def _versioned(meta: str) -> list[str]:
    depends = run("apt-cache", "depends", "--no-recommends", "--no-suggests", meta)
    images = re.findall(r"Depends: (linux-image-\S*\d\S*)", depends)
    if not images:
        return []
    image = images[0]
    # Ubuntu has the modules in a package of their own, Debian 14 the kernel itself as well.
    parts = re.findall(
        r"Depends: (linux-(?:base|binary|modules)-\d\S*)", run("apt-cache", "depends", image)
    )
    return [image, *parts]


def _from_host() -> Ingredients:
    kernels = sorted(Path("/usr/lib/modules").glob("*/vmlinuz"))
    busybox, agent = shutil.which("busybox"), shutil.which("qemu-ga")
    if not (kernels and busybox and agent):
        raise LabError(
            "the guest needs a kernel under /usr/lib/modules, a static busybox and qemu-ga: "
            "install kernel-core, busybox and qemu-guest-agent (Arch: linux instead of kernel-core)"
        )
    return Ingredients(kernels[-1], kernels[-1].parent, Path(busybox), Path(agent))


def _modules(root: Path) -> Path:
    for prefix in ("lib/modules", "usr/lib/modules"):
        for tree in sorted((root / prefix).glob("*/kernel")):
            return tree.parent
    raise LabError(f"no kernel modules below {root}")


def _kernel(root: Path) -> Path:
    for pattern in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"):
        for kernel in sorted(root.glob(pattern)):
            return kernel
    raise LabError(f"no kernel below {root}")


def _first(*candidates: Path) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise LabError(f"none of {', '.join(map(str, candidates))} exists")
