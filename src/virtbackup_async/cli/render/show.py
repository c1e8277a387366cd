"""Prints all that is known of one backup.

::

    web@20260701-030000_3_web
      state     good, verified 2026-07-02 09:12
      made      2026-07-01 03:00:00, 2 days ago, by version 1.1.0
      quiesced  yes, frozen for 41 ms at most
      frees     310.0 MiB

    dev  disk      used      read     stored     how read
    vda  40.0 GiB  20.1 GiB  1.2 GiB  310.0 MiB  changes since 20260630-030000_3_web

    vda /var/lib/libvirt/images/web.qcow2
        blake3-256k:5e5f7a...

    virtbackup restore web@20260701-030000_3_web DIRECTORY
"""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns, size_or_blank
from virtbackup_async.cli.render.console import BAD, FACT, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_command, print_line
from virtbackup_async.engine.inventory.dates import pasteable
from virtbackup_async.model.amounts import age, size
from virtbackup_async.model.heads import head_of
from virtbackup_async.reporting.reports.show import ShowReport

STATE_STYLES = {"good": GOOD, "unverified": LOOK, "damaged": BAD, "broken": BAD}
_DISK_COLUMNS = (
    Column("dev"),
    Column("disk"),
    Column("used"),
    Column("read"),
    Column("stored"),
    Column("how read", style=lambda how: LOOK if how.startswith("in full: ") else "", wraps=True),
)


def print_show(report: ShowReport, console: Console, _summary: events.Summary) -> None:
    """Print the backup."""
    shown = report.shown
    if shown is None:
        return
    print_line(console, f"{shown.domain}@{shown.backup}", "bold")
    facts = [(name, text, style) for name, text, style in _facts(shown) if text]
    width = max(len(name) for name, _, _ in facts)
    for name, text, style in facts:
        print_line(console, text, style, head=f"  {name:<{width}}  ", head_style=FACT)
    if shown.disks:
        console.print()
        print_columns(console, _DISK_COLUMNS, [_row(disk) for disk in shown.disks])
        console.print()
        for head, file in _files(shown):
            print_line(console, file, FACT, head=head, head_style=FACT)
    console.print()
    for command in shown.commands:
        print_command(console, command)


def _facts(shown: events.ShownBackup) -> Iterator[tuple[str, str, str]]:
    yield "state", _state(shown), STATE_STYLES.get(shown.state, "")
    yield "made", _made(shown), ""
    yield "note", shown.note or "", ""
    yield "pinned", "yes: no rule removes it" if shown.pinned else "", ""
    if shown.packager is not None:
        yield "domain", _domain(shown), ""
        yield "method", shown.method or "", ""
        yield "quiesced", _quiesced(shown), LOOK if shown.not_quiesced else ""
    for lack in shown.skipped:
        older = f"; {lack.older} has it" if lack.older else ""
        yield "without", f"{lack.what}: {lack.reason}{older}", LOOK if lack.older else ""
    yield "packager", shown.packager or "", ""
    yield "copied", f"from {shown.copied_from}" if shown.copied_from else "", ""
    if shown.sequence is not None:
        yield "head", head_of(shown.sequence, shown.definition_hash or ""), ""
    yield "group", shown.group, ""
    yield "file", shown.definition, ""
    if shown.frees_bytes is not None:
        yield "frees", f"{size(shown.frees_bytes)}, if it alone is removed", ""


def _state(shown: events.ShownBackup) -> str:
    if shown.error is not None:
        return f"{shown.state}: {shown.error}"
    if shown.verified_date is None:
        return f"{shown.state}: run virtbackup verify"
    day = _moment(shown.verified_date)
    if shown.verified_error is not None:
        return f"{shown.state}, verified {day}: {shown.verified_error}"
    return f"{shown.state}, verified {day}" + ("" if shown.has_digests else ", without digests")


def _made(shown: events.ShownBackup) -> str:
    if shown.date is None or shown.age_s is None:
        return ""
    when = f"{age(shown.age_s)} ago" if shown.age_s >= 0 else "in the future"
    where = f", on {shown.host}" if shown.host else ""
    by = f"{where}, by version {shown.version}" if shown.version else where
    return f"{_moment(shown.date)}, {when}{by}"


def _domain(shown: events.ShownBackup) -> str:
    state = {"running": "running", "shutoff": "shut off"}.get(shown.domain_state or "", "")
    return ", ".join(filter(None, (shown.domain, shown.uuid, state)))


def _quiesced(shown: events.ShownBackup) -> str:
    if shown.quiesced is None:
        return ""
    if not shown.quiesced:
        return "no" + (f": {shown.not_quiesced}" if shown.not_quiesced else "")
    frozen = f", frozen for {shown.frozen_ms} ms at most" if shown.frozen_ms is not None else ""
    return f"yes{frozen}"


def _row(disk: events.ShownDisk) -> Row:
    return {
        "dev": disk.disk,
        "disk": size_or_blank(disk.size_bytes),
        "used": size_or_blank(disk.data_bytes),
        "read": size_or_blank(disk.read_bytes),
        "stored": size_or_blank(disk.stored_bytes),
        "how read": _how(disk),
    }


def _how(disk: events.ShownDisk) -> str:
    if disk.base is not None:
        audit = f", {size(disk.audited_bytes)} compared" if disk.audited_bytes else ""
        failed = ", THE COMPARISON FAILED" if disk.audit_failed else ""
        return f"changes since {disk.base}{audit}{failed}"
    return f"in full: {disk.reason}" if disk.reason else "in full"


def _files(shown: events.ShownBackup) -> Iterator[tuple[str, str]]:
    """Yield what is at the start of each line, and the line."""
    # With it, a digest is as wide as a terminal of 80 columns.
    indent = " " * len("vda ")
    for disk in shown.disks:
        was = f", was {disk.original_format}" if disk.original_format else ""
        yield f"{disk.disk} ", disk.source or disk.file
        if disk.format:
            yield indent, f"as {disk.file}, {disk.format}{was}"
            yield from _digest(indent, disk.digest)
        for below in disk.backing:
            yield indent, f"on {below.source}, {below.format}, {size(below.data_bytes)}"
            yield from _digest(indent, below.digest)
    for state in shown.state_files:
        yield f"{state.what} ", f"{state.source}, {size(state.data_bytes)}"


def _digest(indent: str, digest: str | None) -> Iterator[tuple[str, str]]:
    if digest is not None:
        yield indent, digest


def _moment(date: str) -> str:
    return pasteable(datetime.fromisoformat(date))
