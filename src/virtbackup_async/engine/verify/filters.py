"""The choice of backups to verify, by ages, dates and samples as an admin types them. Pure."""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TypeVar

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.inventory.dates import start_of
from virtbackup_async.engine.inventory.group_backups import GroupBackups
from virtbackup_async.engine.verify.results import SelectedBackup
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.read_share import ALL, USUAL_ELSEWHERE, ReadShare, read_share_of
from virtbackup_async.model.storage_location import StorageLocation

T = TypeVar("T")

_SAMPLE = re.compile(r"(\d{1,9})(%?)")
_ALL_PERCENT = 100


class VerifyRequest(Struct, frozen=True):
    """Which backups to verify, all as they were typed.

    Attributes:
        groups: groups, domains and single backups; no group for all that have a target.
        domains: names or patterns; none for all domains of the groups.
        newer_than: an age or a date, see ``inventory/dates.py``.
        not_verified_since: the same; a backup that was found damaged is always read again.
        sample: how many of the remaining backups: ``5`` or ``10%``.
        quick: only check that all files exist and are long enough.
        read_data: how much of the data to read, ``2%``, ``10GiB`` or ``all``; None for what the
            groups say, or the usual share.
    """

    groups: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    newer_than: str | None = None
    not_verified_since: str | None = None
    sample: str | None = None
    quick: bool = False
    read_data: str | None = None


class BackupFilter:
    """Chooses the backups that a request asks for.

    Raises:
        ConfigError: an age, a date, the sample or the share cannot be understood.
    """

    def __init__(self, request: VerifyRequest, now: datetime) -> None:
        self._today = now.date()
        self._sample = request.sample
        newer_than, since = request.newer_than, request.not_verified_since
        self._newer_than = None if newer_than is None else start_of(newer_than, now)
        self._verified_before = None if since is None else start_of(since, now)
        if request.sample is not None:
            draw_sample([], request.sample, self._today, str)
        self._share = None if request.read_data is None else _share_of(request.read_data)

    def choose(self, groups: Sequence[GroupBackups]) -> list[SelectedBackup]:
        """Return each backup once, even if several groups share a target and include its domain."""
        by_path = {
            found.path: SelectedBackup(group.group, found)
            for group in reversed(groups)
            for found in group.backups
            if self._wants(found)
        }
        chosen = list(by_path.values())
        if self._sample is None:
            return chosen
        return draw_sample(chosen, self._sample, self._today, lambda one: str(one.found.path))

    def share(self, target: StorageLocation, configured: str | None) -> ReadShare:
        """Return how much of a target's data is read: as asked for, as configured, or usual."""
        if self._share is not None:
            return self._share
        if configured is not None:
            return _share_of(configured)
        return ALL if target.is_local else _share_of(USUAL_ELSEWHERE)

    def _wants(self, found: FoundBackup) -> bool:
        if self._newer_than is not None and found.definition.date < self._newer_than:
            return False
        verified = found.definition.verified
        if self._verified_before is None or verified is None or not verified.ok:
            return True
        return verified.date < self._verified_before


def _share_of(text: str) -> ReadShare:
    share = read_share_of(text)
    if share is None:
        raise ConfigError(
            f"share of data {text!r} cannot be understood",
            hint="Write a share, as 2%, an amount, as 10GiB, or all.",
        )
    return share


def draw_sample(items: Sequence[T], sample: str, day: date, name: Callable[[T], str]) -> list[T]:
    """Return some of ``items``, in their order; the same ones all day.

    Whether an item is drawn depends on its name, the day, and how many there are. Each day draws
    anew, so that a daily run comes to all of them in time.

    Args:
        items: to draw from.
        sample: how many: ``5``, or a share, ``10%``, rounded up.
        day: of today.
        name: what tells an item from others.

    Raises:
        ConfigError: ``sample`` is no number, or a share over 100 %.
    """
    found = _SAMPLE.fullmatch(sample.strip())
    if found is None or (found[2] and int(found[1]) > _ALL_PERCENT):
        raise ConfigError(
            f"sample {sample!r} cannot be understood",
            hint="Write how many backups, as 5, or which share of them, as 10%.",
        )
    number = int(found[1])
    wanted = math.ceil(len(items) * number / _ALL_PERCENT) if found[2] else number

    def lot(item: T) -> bytes:
        return hashlib.blake2b(f"{day.isoformat()} {name(item)}".encode()).digest()

    drawn = {id(item) for item in sorted(items, key=lot)[:wanted]}
    return [item for item in items if id(item) in drawn]
