"""Proposes a configuration for a host, from the facts about it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from virtbackup_async.config.new_file import NewConfig, NewHost
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.setup.site import Site
from virtbackup_async.errors import NotFoundError
from virtbackup_async.events import AgentState, DomainFound, FileSystemFound
from virtbackup_async.model.packager import SHARING_TYPE

NAME = "virtbackup"
KEEP = {"keep_last": 3, "hourly": 0, "daily": 7, "weekly": 4, "monthly": 6, "yearly": 0}
_OF_THE_SYSTEM = {Path("/"): "var/backups", Path("/var"): "backups"}


class Choices(Struct, frozen=True):
    """The admin's choices that replace parts of the proposal.

    Attributes:
        target: where the backups go; None for the proposed directory.
        domains: the names of the domains to back up; None for all, including later ones.
        quiesce: None to quiesce where an agent answers, or might.
        keep: how many daily, weekly and monthly backups.
    """

    target: Path | None = None
    domains: tuple[str, ...] | None = None
    packager: str = SHARING_TYPE
    quiesce: bool | None = None
    keep: tuple[int, int, int] = (KEEP["daily"], KEEP["weekly"], KEEP["monthly"])


def rank(site: Site) -> list[FileSystemFound]:
    """Return the file systems that backups could go to, the best one first.

    A disk without a guest's image comes before one with an image; next, any other file system
    before the root file system; then one with enough space for the images' data; then most space.
    """

    def badness(found: FileSystemFound) -> tuple[bool, bool, bool, int]:
        free_bytes = found.free_bytes or 0
        is_root = found.path == "/"
        return bool(found.same_disk_as), is_root, free_bytes < site.used_bytes, -free_bytes

    return sorted((found for found in site.file_systems if found.unfit is None), key=badness)


def directory_on(point: Path) -> Path:
    """Return the directory for backups on the file system that is mounted there.

    It is below the mount point. So it is missing while nothing is mounted there, and no backup
    fills the file system underneath.
    """
    return point / _OF_THE_SYSTEM.get(point, "") / NAME


def is_safe(found: FileSystemFound) -> bool:
    """Return whether a file system can be used without asking the admin."""
    return not found.same_disk_as and found.path != "/"


def propose(site: Site, choices: Choices, target: Path, place: str = "") -> NewConfig:
    """Return the configuration for a host.

    Args:
        site: the facts about the host.
        choices: the admin's choices.
        target: where the backups go.
        place: the facts about the target, for a comment.

    Raises:
        NotFoundError: a domain that is to be backed up does not exist.
    """
    by_name = {domain.domain: domain for domain in site.domains}
    for name in choices.domains or ():
        if name not in by_name:
            meant = did_you_mean(name, by_name)
            raise NotFoundError(f"libvirt at {site.uri} has no domain {name!r}{meant}")
    wanted = [by_name[name] for name in choices.domains or by_name]
    quiesce = choices.quiesce
    if quiesce is None:
        quiesce = any(map(_may_freeze, wanted))
    takes_all = choices.domains is None
    daily, weekly, monthly = choices.keep
    return NewConfig(
        uri=site.uri,
        target=target,
        place=place,
        packager=choices.packager,
        quiesce=quiesce,
        takes_all=takes_all,
        hosts=tuple(_hosts(wanted, quiesce=quiesce, only_exceptions=takes_all)),
        keep=KEEP | {"daily": daily, "weekly": weekly, "monthly": monthly},
    )


def _hosts(
    domains: Iterable[DomainFound], *, quiesce: bool, only_exceptions: bool
) -> Iterator[NewHost]:
    for found in domains:
        if only_exceptions and not found.disks and found.error is None:
            why = f"{found.domain} has no disk that can be backed up."
            yield NewHost(found.domain, is_excluded=True, why=why)
        elif quiesce and not _may_freeze(found):
            why = f"{found.domain}: {_NO_FREEZE[found.agent]}."
            yield NewHost(found.domain, quiesce=False, why=why)
        elif not only_exceptions:
            yield NewHost(found.domain)


_NO_FREEZE = {
    AgentState.SILENT: "its guest agent did not answer",
    AgentState.NONE: "it has no channel for a guest agent",
}


def _may_freeze(domain: DomainFound) -> bool:
    return domain.agent in {AgentState.ANSWERS, AgentState.UNKNOWN}


def names(domains: Sequence[str], most: int = 5) -> str:
    """Return some of the names, and how many more there are."""
    more = len(domains) - most
    shown = ", ".join(domains[:most])
    return f"{shown} and {more} more" if more > 0 else shown
