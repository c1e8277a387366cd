"""Draws a board as lines, each exactly one row of the terminal, however narrow it is.

::

    1 failed  3 of 5 done  ############--------   62 %  1.2 GiB of 1.9 GiB  11.6 MiB/s  1:04 left
    x bad  image of vda missing: /srv/img/bad.qcow2
    > app  ############--------   61 %  0:18 left  vda 61, vdb next  changes only  frozen 307 ms
    > db   ######--------------   31 %  0:50 left  vda 55, vdb 12  vdb in full: its image is raw
    next: mail, web            main -> /mnt/backups  0:10 elapsed, Ctrl-C undoes cleanly

The whole is always there, and so is the number of failures. A narrow terminal drops the amount
first, then the speed, the count, and the time left. What is known of a work goes into a second row
if there is space. A low terminal counts the works that have no row.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import Struct, field
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from virtbackup_async.cli.render.board import Board, Failure
from virtbackup_async.cli.render.console import BAD, FACT, GOOD, LOOK
from virtbackup_async.cli.render.glyphs import Glyphs
from virtbackup_async.cli.render.work import DiskRow, Work
from virtbackup_async.events import Phase
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.text import clock, count, percent, printable

_PERCENT = 100
_BAR = 20
_WIDE_BAR = 40
_LEAST_BAR = 4
_LEAST_NAME = 8
_LEAST_FACT = 8
_FEW_DISKS = 4
_NAMES = 64
_GAP = "  "
Part = tuple[str, str]
"""A text and its style."""


class Drawing(Struct, frozen=True):
    """Draws boards for a terminal of ``width`` columns and ``height`` rows.

    ``widest`` remembers how wide each number was, so that nothing moves to and fro.
    """

    width: int
    height: int
    glyphs: Glyphs
    widest: dict[str, int] = field(default_factory=dict)

    @property
    def _columns(self) -> int:
        # The last column stays free: some terminals wrap as soon as it is written.
        return max(1, self.width - 1)

    def lines(self, board: Board, now_s: float) -> list[Text]:
        """Return the complete view; never as many rows as the terminal has."""
        lines = [self._whole(board, now_s)]
        # One row is for the whole, one for what waits, one stays free.
        space = self.height - 3
        if space < 1:
            return lines
        moving = [work for work in board.rows.values() if work.is_moving]
        failures = board.failures[-max(1, space // 2 if moving else space) :]
        space -= len(failures)
        shown = moving if len(moving) <= space else moving[: max(0, space - 1)]
        width = self._name_width(board, failures, shown)
        lines += [self._failure(failure, board, width) for failure in failures]
        lines += self._works(shown, board, width, now_s, in_two=2 * len(moving) <= space)
        if len(shown) < len(moving) and space:
            lines.append(self._line((f"  and {len(moving) - len(shown)} more at work", FACT)))
        lines.append(self._last(board, now_s))
        return lines

    def _whole(self, board: Board, now_s: float) -> Text:
        whole = board.whole()
        failed = f"{len(board.failures)} failed" if board.failures else ""
        share = f"{int(whole.share * _PERCENT):>3} %"
        space = self._columns - len(_GAP) - len(share)
        space -= len(failed) + len(_GAP) if failed else 0
        parts = dict(self._facts(board, now_s))
        kept: dict[str, str] = {}
        for name in ("left", "count", "speed", "amount"):
            needed = cell_len(parts[name]) + len(_GAP)
            if parts[name] and needed <= space - _BAR:
                kept[name] = parts[name]
                space -= needed
        bar = self._bar(whole.share, min(_WIDE_BAR, space))
        return self._line(
            (failed, BAD),
            (kept.get("count", ""), ""),
            bar,
            (share, "bold"),
            *((kept.get(name, ""), "") for name in ("amount", "speed", "left")),
        )

    def _facts(self, board: Board, now_s: float) -> Iterator[tuple[str, str]]:
        whole, speed, left_s = board.whole(), board.speed.bytes_per_s(now_s), board.left_s(now_s)
        yield "left", self._wide("left", "" if left_s is None else f"{clock(left_s)} left")
        yield "count", f"{board.ended} of {board.works} done" if board.works > 1 else ""
        yield "speed", self._wide("speed", "" if speed is None else f"{size(speed)}/s")
        amount = f"{size(whole.done_bytes)} of {size(whole.total_bytes)}"
        yield "amount", self._wide("amount", amount if whole.total_bytes else "")

    def _wide(self, key: str, text: str) -> str:
        width = self.widest[key] = max(self.widest.get(key, 0), len(text))
        return text.rjust(width)

    def _failure(self, failure: Failure, board: Board, width: int) -> Text:
        name = self._fit(_name(failure.group, failure.name, board), width)
        return self._line((f"{self.glyphs.failed} {name}", BAD), (printable(failure.error), BAD))

    def _works(
        self, works: Sequence[Work], board: Board, width: int, now_s: float, *, in_two: bool
    ) -> Iterator[Text]:
        """Draw a row for each work; two if all have space, and one is not enough for some."""
        drawn = [(self._work(work, board, width, now_s), tuple(_how(work))) for work in works]
        gap = len(_GAP)
        widths = [row.cell_len + sum(cell_len(s) + gap for s, _ in how) for row, how in drawn]
        in_two = in_two and any(one > self._columns for one in widths)
        indent = " " * (len(self.glyphs.at_work) + 1 + width)
        for row, how in drawn:
            yield self._line(row) if in_two else self._line(row, *how)
            if in_two and how:
                yield self._line((indent, ""), *how)

    def _work(self, work: Work, board: Board, width: int, now_s: float) -> Text:
        undoing = work.phase is Phase.UNDOING
        glyph = self.glyphs.undoing if undoing else self.glyphs.at_work
        name = self._fit(_name(work.group, work.name, board), width)
        share = f"{int(work.share * _PERCENT):>3} %"
        space = self._columns - len(glyph) - 1 - width - 2 * len(_GAP) - len(share)
        left = self._wide("row left", _left(work, board.left_s(now_s), now_s))
        if len(left) + len(_GAP) > space - _BAR:
            left = ""
        phase = "" if work.phase is Phase.COPYING else str(work.phase)
        return self._line(
            (f"{glyph} {name}", LOOK if undoing else "bold"),
            self._bar(work.share, min(_BAR, space)),
            (share, ""),
            (left, ""),
            (phase, LOOK if undoing else ""),
            (printable(_disks(work)), ""),
        )

    def _last(self, board: Board, now_s: float) -> Text:
        """Draw what waits, and why; at the right, how long the run has taken."""
        elapsed = clock(0 if board.started_s is None else now_s - board.started_s)
        words = [f"{board.hook} runs"] if board.hook else []
        for reason, works in board.waits():
            names = [_name(work.group, work.name, board) for work in islice(works, _NAMES)]
            words.append(f"{printable(reason)}: {printable(', '.join(dict.fromkeys(names)))}")
        waits = _GAP.join(words)
        undoes = ", Ctrl-C undoes cleanly" if board.command in {"backup", "copy"} else ""
        label = f"{printable(_label(board))}{_GAP}".lstrip()
        rights = (
            f"{label}{elapsed} elapsed{undoes}",
            f"{label}{elapsed} elapsed",
            f"{elapsed} elapsed{undoes}",
            f"{elapsed} elapsed",
        )
        needed = cell_len(waits) + len(_GAP)
        right = next((one for one in rights if needed + cell_len(one) <= self._columns), elapsed)
        waits = self._fit(waits, max(0, self._columns - cell_len(right) - len(_GAP)))
        return self._line((waits, FACT), (right, FACT))

    def _name_width(self, board: Board, failures: Sequence[Failure], works: Sequence[Work]) -> int:
        named = [(failure.group, failure.name) for failure in failures]
        named += [(work.group, work.name) for work in works]
        names = [printable(_name(group, name, board)) for group, name in named]
        widest = max(map(cell_len, names), default=0)
        return min(widest, max(_LEAST_NAME, self._columns // 3))

    def _bar(self, share: float, width: int) -> Part | Text:
        if width < _LEAST_BAR:
            return "", ""
        full = min(width, int(width * share))
        bar = Text(self.glyphs.full * full, style=GOOD)
        return bar.append(self.glyphs.empty * (width - full), style=FACT)

    def _line(self, *parts: Part | Text) -> Text:
        """Put the parts that have a text into one row; cut what is too much."""
        line = Text()
        for part in parts:
            text = part if isinstance(part, Text) else Text(*part)
            space = self._columns - line.cell_len - len(_GAP)
            if line.plain and space < min(_LEAST_FACT, text.cell_len):
                break
            if text.plain:
                line.append(_GAP if line.plain else "").append_text(text)
        if line.cell_len > self._columns:
            line.truncate(self._columns - len(self.glyphs.ellipsis), overflow="crop")
            line.append(self.glyphs.ellipsis)
        return line

    def _fit(self, name: str, width: int) -> str:
        """Return the name in exactly ``width`` cells, cut with an ellipsis if it is longer."""
        name = printable(name)
        if width and cell_len(name) > width:
            name = set_cell_size(name, width - 1) + self.glyphs.ellipsis
        return set_cell_size(name, width)


def _label(board: Board) -> str:
    """Return where all of it goes, if that is one place."""
    if len(board.targets) == 1:
        ((group, target),) = board.targets.items()
        return f"{group} -> {target}"
    restored = [work for work in board.rows.values() if work.target]
    return f"{restored[0].name} -> {restored[0].target}" if len(restored) == 1 else ""


def _name(group: str | None, name: str, board: Board) -> str:
    return f"{group}/{name}" if group and len(board.targets) > 1 else name


def _disks(work: Work) -> str:
    """Return how far each disk is; of many, only those that are not done."""
    disks = list(work.disks.values())
    if len(disks) == 1 and disks[0].phase in {None, Phase.COPYING}:
        return ""
    left = [disk for disk in disks if not disk.is_done]
    shown = left if len(disks) > _FEW_DISKS else disks
    words = [f"{disk.name} {_state(disk)}" for disk in shown]
    if len(shown) < len(disks):
        words.insert(0, f"{len(disks) - len(shown)} of {count(len(disks), 'disk')} done")
    return ", ".join(words)


def _state(disk: DiskRow) -> str:
    """Return how far a disk is, in a word."""
    if disk.is_done:
        return "done"
    if disk.phase not in {None, Phase.COPYING}:
        return str(disk.phase)
    if disk.total_bytes is None:
        return "next"
    return str(percent(disk.done_bytes, disk.total_bytes))


def _left(work: Work, whole_s: float | None, now_s: float) -> str:
    speed, total_bytes = work.speed.bytes_per_s(now_s), work.total_bytes
    if not speed or not total_bytes or work.phase is not Phase.COPYING:
        return ""
    left_s = (1 - work.share) * total_bytes / speed
    # A limit is shared: what is left to others in the end makes this one faster.
    return f"{clock(left_s if whole_s is None else min(left_s, whole_s))} left"


def _how(work: Work) -> Iterator[Part]:
    """Yield how a work is read, why, and how long its guest was frozen."""
    in_full = [reading for reading in work.readings if reading.base is None]
    if work.readings and not in_full:
        yield "changes only", FACT
    for reading in in_full:
        yield printable(f"{reading.disk} in full: {reading.reason}"), FACT
    if work.held is None:
        return
    if work.held.frozen_ms is not None:
        yield f"frozen {work.held.frozen_ms} ms", FACT
    elif work.held.not_quiesced:
        yield printable(f"not quiesced: {work.held.not_quiesced}"), LOOK
