"""Finds the backup at which a guest's data suddenly became another: ransomware may have done that.

A guest whose files are encrypted rewrites nearly all of its data, and nothing of it can be
compressed or was stored before. Its backups are intact, so retention would go on, and remove the
last good ones. Each guest is compared with its own history::

    usual        the last 30 backups that are older than a week: the median, and the spread
    excess       new data of the last week's backups, above the usual amount of each
    rewritten    the excess is at least half of the guest's data
    incompressible   at least a quarter is, of the data that usually can be compressed

The week adds up what an attack that takes days, or backups every hour, spread over many backups.
Packages outside of repositories hold all data each time, so only how well it can be compressed is
compared. Few backups, a little data, and a guest whose data could never be compressed raise no
alarm. An accepted backup, and all before it, are no reason for alarm any more, and an amount that
was accepted once is usual from then on.

The definitions are trusted: a thief on the host that makes the backups can write any numbers into
them. Against that thief there is the protection window (``protection.py``). Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import Final

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.model.amounts import size
from virtbackup_async.model.backup import Definition

LEAST_BACKUPS: Final = 3
MOST_BACKUPS: Final = 30
WINDOW_S: Final = 7 * 86400
REWRITTEN_SHARE: Final = 0.5
INCOMPRESSIBLE_SHARE: Final = 0.25
LEAST_BYTES: Final = 64 << 20
_LEAST_NEW_BYTES: Final = 1 << 20
"""Less new data says nothing of how well a guest's data can be compressed."""
_SPREADS: Final = 5
_RATIO_SPREADS: Final = 3
_SPREAD_OF_MAD: Final = 1.4826
"""Times the median deviation, it is the standard deviation of normally distributed values."""
_LEAST_LOST: Final = 0.5
"""The share of the compressible part of new data that is incompressible all at once."""
_MOST_NOISE: Final = 0.7
_USUALLY_INCOMPRESSIBLE: Final = 0.95


class Jump(Struct, frozen=True):
    """The backup at which a guest's data became another.

    Attributes:
        found: the backup; those before it may be the last good ones.
        reason: what changed, in words.
    """

    found: FoundBackup
    reason: str


class _Measure(Struct, frozen=True):
    """What one backup recorded.

    Attributes:
        data_bytes: the data of the guest.
        new_bytes: of it, the data that was new in the repository; None outside of repositories.
        changed_bytes: of it, the data that was new, or had changed by the dirty bitmaps.
        stored_bytes: the space of the new data; outside of repositories, of all data.
    """

    found: FoundBackup
    data_bytes: int
    new_bytes: int | None
    changed_bytes: int
    stored_bytes: int

    @property
    def date(self) -> int:
        return self.found.definition.date

    @property
    def is_accepted(self) -> bool:
        return self.found.definition.accepted is not None

    @property
    def kind(self) -> tuple[str | None, bool, str]:
        """Equal for backups whose numbers can be compared: of one guest, in one form."""
        definition = self.found.definition
        opts = definition.packager.opts
        form = "" if self.new_bytes is not None else f"{definition.packager.type} {opts}"
        return definition.domain_uuid, self.new_bytes is not None, form

    @property
    def ratio(self) -> float | None:
        """The space that its data takes, by the length; None for too little data."""
        length = self.data_bytes if self.new_bytes is None else self.new_bytes
        return self.stored_bytes / length if length >= _LEAST_NEW_BYTES else None


def find_jump(backups: Iterable[FoundBackup]) -> Jump | None:
    """Return the first jump among the backups of one domain that nobody has accepted."""
    measures = [each for found in backups if (each := _measured(found)) is not None]
    measures.sort(key=lambda each: (each.date, each.found.path.name))
    jumps = [
        jump
        for _, alike in groupby(sorted(measures, key=_kind_text), _kind_text)
        if (jump := _first_jump([*alike])) is not None
    ]
    return min(jumps, key=lambda jump: jump.found.definition.date, default=None)


def _kind_text(measure: _Measure) -> str:
    return repr(measure.kind)


def _measured(found: FoundBackup) -> _Measure | None:
    definition = found.definition
    images = definition.images
    if not images:
        return None  # virt-backup records nothing
    data_bytes = sum(image.data_bytes for image in images)
    known = [image for image in images if image.new_bytes is not None]
    if not known:
        stored_bytes = sum(image.stored_bytes for image in images)
        return _Measure(found, data_bytes, None, 0, stored_bytes)
    new_bytes = sum(image.new_bytes or 0 for image in known)
    compressed_bytes = sum(image.compressed_bytes or 0 for image in known)
    changed_bytes = max(new_bytes, _changed_bytes(definition))
    return _Measure(found, data_bytes, new_bytes, changed_bytes, compressed_bytes)


def _changed_bytes(definition: Definition) -> int:
    """Return how much changed by the dirty bitmaps: a failed backup may have stored it already."""
    readings = (record.reading for record in definition.records.values())
    return sum(
        max(0, reading.read_bytes - reading.audited_bytes)
        for reading in readings
        if reading is not None and reading.base is not None
    )


def _first_jump(measures: Sequence[_Measure]) -> Jump | None:
    accepted = [place for place, each in enumerate(measures) if each.is_accepted]
    first = accepted[-1] + 1 if accepted else 0
    for place in range(first, len(measures)):
        began_s = measures[place].date - WINDOW_S
        week = [each for each in measures[first : place + 1] if each.date > began_s]
        before = measures[: place + 1 - len(week)]
        usual = before[-MOST_BACKUPS:]
        if len(usual) < LEAST_BACKUPS:
            # The first backups of a guest have no week before them.
            usual, week = measures[:place], [measures[place]]
        reason = _compared(_Usual.of(usual), week) if len(usual) >= LEAST_BACKUPS else None
        if reason is not None:
            return Jump(measures[place].found, reason)
    return None


class _Usual(Struct, frozen=True):
    """The usual numbers of a guest.

    Attributes:
        data_bytes: of the newest of the backups.
        most_changed_bytes: more than that is unusual.
        ratio: the usual one; None if it is not known.
        ratio_spread: its spread.
    """

    data_bytes: int
    most_changed_bytes: float
    ratio: float | None
    ratio_spread: float

    @classmethod
    def of(cls, backups: Sequence[_Measure]) -> "_Usual":
        """Return the usual numbers; at least one backup."""
        changed = [each.changed_bytes for each in backups]
        accepted = [each.changed_bytes for each in backups if each.is_accepted]
        ratios = [ratio for each in backups if (ratio := each.ratio) is not None]
        return cls(
            backups[-1].data_bytes,
            max(median(changed) + _SPREADS * _spread(changed), *accepted, 0),
            median(ratios) if ratios else None,
            _spread(ratios) if ratios else 0.0,
        )

    def lost_share(self, measure: _Measure) -> float:
        """Return the share of data that cannot be compressed, though it usually can; 0 if few."""
        ratio = measure.ratio
        if ratio is None or self.ratio is None or self.ratio > _USUALLY_INCOMPRESSIBLE:
            return 0.0
        lost_share = (ratio - self.ratio) / (1 - self.ratio)
        # Data that cannot be compressed at all is unusual, however much the ratio spreads.
        noise = min(_RATIO_SPREADS * self.ratio_spread / (1 - self.ratio), _MOST_NOISE)
        return min(1.0, lost_share) if lost_share > noise else 0.0


def _spread(values: Sequence[float]) -> float:
    """Return the spread of values: unlike the standard deviation, no single one can raise it."""
    middle = median(values)
    return _SPREAD_OF_MAD * median(abs(value - middle) for value in values)


def _compared(usual: _Usual, week: Sequence[_Measure]) -> str | None:
    if week[-1].new_bytes is None:
        lost_bytes = usual.lost_share(week[-1]) * week[-1].data_bytes
        return _incompressible(lost_bytes, usual.data_bytes)
    excess_bytes = lost_bytes = 0.0
    for each in week:
        excess = max(0.0, each.changed_bytes - usual.most_changed_bytes)
        excess_bytes += excess
        lost_share = usual.lost_share(each)
        if lost_share >= _LEAST_LOST:
            lost_bytes += lost_share * min(excess, each.new_bytes or 0)
    return _incompressible(lost_bytes, usual.data_bytes) or _rewritten(
        excess_bytes, usual.data_bytes
    )


def _incompressible(lost_bytes: float, data_bytes: int) -> str | None:
    if lost_bytes < max(LEAST_BYTES, INCOMPRESSIBLE_SHARE * data_bytes):
        return None
    amounts = _of(lost_bytes, data_bytes)
    return f"{amounts} can no longer be compressed, as if it were encrypted"


def _rewritten(excess_bytes: float, data_bytes: int) -> str | None:
    if excess_bytes < max(LEAST_BYTES, REWRITTEN_SHARE * data_bytes):
        return None
    return f"{_of(excess_bytes, data_bytes)} changed, more than usual"


def _of(some_bytes: float, data_bytes: int) -> str:
    return f"{size(int(some_bytes))} of {size(data_bytes)} of its data"


def before_jump(jump: Jump | None, backups: Iterable[FoundBackup]) -> Iterator[FoundBackup]:
    """Yield the backups that must stay: those from before the jump, and the jump itself."""
    if jump is None:
        return
    last = (jump.found.definition.date, jump.found.path.name)
    yield from (each for each in backups if (each.definition.date, each.path.name) <= last)
