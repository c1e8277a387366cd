"""The programs that are compared: their command lines, what they need first, what they leave.

This program and virt-backup read the same configuration file; each has a target of its own.
"""

import compileall
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml

import virtbackup_async
from benchmarks.measure import run
from benchmarks.race import Contender
from benchmarks.world import World
from lab import virt_backup

OURS = "virtbackup"
VERIFY = f"{OURS} verify"
VIRT_BACKUP = "virt-backup 0.5.6"
SYNCED = f"{VIRT_BACKUP} + sync"
VIRTNBDBACKUP = "virtnbdbackup"
VIRTNBDBACKUP_LZ4 = "virtnbdbackup lz4"
RESTIC = "restic"
BORG = "borg zstd,3"
COPY = "cp + fsync"
CONVERT = "qemu-img convert + fsync"
ZSTD = "zstd -3 -T0 + fsync"
PIGZ = "pigz -6 + fsync"
XZ = "xz -6 -T0 + fsync"

PACKAGERS: Mapping[str, Mapping[str, object]] = {
    "directory": {"packager": "directory"},
    "tar": {"packager": "tar"},
    "zstd": {"packager": "zstd", "packager_opts": {"compression_lvl": 3}},
    "tar.gz": {"packager": "tar", "packager_opts": {"compression": "gz", "compression_lvl": 6}},
    "tar.bz2": {"packager": "tar", "packager_opts": {"compression": "bz2", "compression_lvl": 9}},
    "tar.xz": {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 6}},
    "repository": {"packager": "repository"},
}
# What virt-backup has no packager for.
OURS_ALONE = frozenset({"repository"})
# Of plain tools: what makes the file, to be followed by a sync of it.
_TOOLS = {
    COPY: 'cp "$0" "$1"',
    CONVERT: 'qemu-img convert -U -O qcow2 "$0" "$1"',
    ZSTD: 'zstd -q -3 -T0 "$0" -o "$1"',
    PIGZ: 'pigz -6 -c "$0" >"$1"',
    XZ: 'xz -6 -T0 -c "$0" >"$1"',
}


@dataclass(frozen=True)
class Work:
    """What two backup programs do the same: some disks of some domains, with one packager.

    Attributes:
        name: of its directory.
        packager: a key of ``PACKAGERS``.
        groups: the hosts of each, as the configuration has them; all share a target.
        threads: domains at once.
        quiesce: whether the guests have an agent.
    """

    name: str
    packager: str
    groups: Mapping[str, Sequence[object]]
    threads: int = 1
    quiesce: bool = False


def program() -> str:
    """The installed command of the Python that runs this."""
    return str(Path(sys.executable).with_name("virtbackup"))


def compile_installation() -> None:
    """Compile the Python of our installation, as pip does and other installers do not."""
    for place in (sysconfig.get_paths()["purelib"], Path(virtbackup_async.__file__).parent):
        compileall.compile_dir(place, quiet=2)


def our_backup(world: World, work: Work, name: str = OURS) -> Contender:
    """``virtbackup backup``."""
    config, target = _configure(world, work, name)
    argv = [program(), "-c", str(config), "backup", *work.groups, "--json"]
    return Contender(name, argv, target, is_ours=True)


def their_backup(world: World, work: Work, name: str = VIRT_BACKUP) -> Contender:
    """``virt-backup backup``."""
    config, target = _configure(world, work, name)
    argv = [str(virt_backup.install()), "-c", str(config), "backup", *work.groups]
    return Contender(name, argv, target, env=virt_backup.ENVIRONMENT)


def their_synced_backup(world: World, work: Work) -> Contender:
    """``virt-backup backup``, and what makes its files as durable as the others'."""
    return _synced(their_backup(world, work, SYNCED))


def our_backups_one_by_one(world: World, work: Work, name: str) -> Contender:
    """``virtbackup backup`` of each group, a process each, one after the other."""
    config, target = _configure(world, work, name)
    script = 'config=$1; shift; for group in "$@"; do "$0" -c "$config" backup "$group"; done'
    argv = ["sh", "-ec", script, program(), str(config), *work.groups]
    return Contender(name, argv, target, is_ours=True)


def our_restore(world: World, work: Work, domain: str) -> Contender:
    """``virtbackup restore`` of what ``our_backup`` of the same work left."""
    config, target = _configure(world, work, OURS)
    output = target.parent / "restored"
    argv = [program(), "-c", str(config), "restore", "all", domain, str(output)]
    return Contender(OURS, argv, output, is_ours=True, reads=target)


def our_verify(world: World, work: Work) -> Contender:
    """``virtbackup verify`` of what ``our_backup`` of the same work left."""
    config, target = _configure(world, work, OURS)
    argv = [program(), "-c", str(config), "verify", "all"]
    return Contender(VERIFY, argv, is_ours=True, reads=target)


def their_restore(world: World, work: Work, domain: str) -> Contender:
    """``virt-backup restore`` of what ``their_backup`` of the same work left."""
    config, target = _configure(world, work, VIRT_BACKUP)
    output = target.parent / "restored"
    argv = [str(virt_backup.install()), "-c", str(config), "restore", "all", domain, str(output)]
    return Contender(VIRT_BACKUP, argv, output, env=virt_backup.ENVIRONMENT, reads=target)


def their_synced_restore(world: World, work: Work, domain: str) -> Contender:
    """``virt-backup restore``, and what makes its files as durable as ours."""
    return _synced(their_restore(world, work, domain))


def _synced(plain: Contender) -> Contender:
    argv = ["sh", "-ec", '"$@"; sync -f "$0"', str(plain.output), *plain.argv]
    return replace(plain, name=SYNCED, argv=argv)


def _configure(world: World, work: Work, name: str) -> tuple[Path, Path]:
    place = world.place / work.name / _slug(name)
    target = place / "target"
    target.mkdir(parents=True, exist_ok=True)
    settings = {"target": str(target), "autostart": True, "quiesce": work.quiesce}
    settings |= PACKAGERS[work.packager]
    if work.packager == "repository":
        # Where QEMU makes a socket, so that the next backup need only read what changed.
        scratch = world.place / "scratch"
        scratch.mkdir(exist_ok=True)
        settings["scratch"] = str(scratch)
    groups = {name: {**settings, "hosts": list(hosts)} for name, hosts in work.groups.items()}
    config = place / "config.yml"
    content = {"uri": world.daemon.uri, "threads": work.threads, "groups": groups}
    config.write_text(yaml.safe_dump(content))
    return config, target


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name)


def tool(world: World, name: str, image: Path) -> Contender:
    """A tool that reads the image and writes one file, which is then synced."""
    output = world.place / _slug(name)
    script = f'set -e; {_TOOLS[name]}; sync "$1"'
    argv = ["sh", "-c", script, str(image), str(output / "made")]
    return Contender(name, argv, output, program=name.split(maxsplit=1)[0])


def virtnbdbackup(world: World, domain: str, dev: str, *, lz4: bool = False) -> Contender:
    """A full backup of one disk; the checkpoint it makes is removed after each run."""
    name = VIRTNBDBACKUP_LZ4 if lz4 else VIRTNBDBACKUP
    output, scratch = world.place / _slug(name), world.place / "scratch"
    argv = [
        *("virtnbdbackup", "-U", world.daemon.uri, "-d", domain, "-i", dev, "-l", "full"),
        *("-n", "-S", str(scratch), "-f", str(world.daemon.path / "nbd"), "-o", str(output)),
        # It wants a name and a password for any socket that is not the system's; nobody asks them.
        *("--user", "none", "--password", "none"),
        *(["-z"] if lz4 else []),
    ]
    scratch.mkdir(exist_ok=True)
    return Contender(name, argv, output, undo=partial(forget_checkpoints, world, domain))


def forget_checkpoints(world: World, domain: str) -> None:
    """Remove a domain's checkpoints: each run is to be the first one."""
    # A domain that has one takes no snapshot (libvirt 9.0), so nobody else could run next.
    for name in world.daemon.virsh("checkpoint-list", domain, "--name").split():
        world.daemon.virsh("checkpoint-delete", domain, name)


def restic(world: World, image: Path) -> Contender:
    """``restic backup`` into a new repository."""
    output = world.place / "restic"
    argv = ["restic", "-q", "-r", str(output / "repository"), "--no-cache"]
    env = {"RESTIC_PASSWORD": "benchmark"}
    setup = partial(run, [*argv, "init"], env)
    return Contender(RESTIC, [*argv, "backup", str(image)], output, setup=setup, env=env)


def borg(world: World, image: Path) -> Contender:
    """``borg create`` into a new repository, with chunks of 4 MiB."""
    output = world.place / "borg"
    repository = output / "repository"
    env = {"BORG_BASE_DIR": str(output / "home")}
    argv = [
        *("borg", "create", "--compression", "zstd,3", "--chunker-params", "fixed,4194304"),
        *(f"{repository}::made", str(image)),
    ]
    setup = partial(run, ["borg", "init", "-e", "none", str(repository)], env)
    return Contender(BORG, argv, output, setup=setup, env=env)


def installed(contenders: Sequence[Contender]) -> list[Contender]:
    """Those whose program is here."""
    return [one for one in contenders if shutil.which(one.needs)]
