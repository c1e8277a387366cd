"""The table of docs/explanation/crash-safety.md: which faults there are, and what came of each.

``planned_rows`` says which faults are to be tried, from the points that commands really pass; the
page holds the outcomes of the last whole run. The tests read their rows from the page, and fail
where it does not name what is planned. ``scripts/update-crash-table`` writes it.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from faults.deaths import SCRATCH_FULL
from faults.runs import Row

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "crash-safety.md"
COMMAND = "scripts/update-crash-table"
_BLOCK = re.compile(r"(<!-- measured: crash table -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = "| Point | Death | Command | Backups after clean |\n|---|---|---|---|"
_WRITTEN = re.compile("before sync (package|part|temporary)")

# Of a backup that differs from another in some steps only, those.
_PACKAGE = re.compile("package|definition")
_INCREMENTAL = re.compile("link|backupBegin|export|abortJob|index|rename definition|checkpoint")
_STEPS = {
    "backup, incremental": _INCREMENTAL,
    "backup, running, tar.gz": _PACKAGE,
    "backup, shut off, tar.gz": _PACKAGE,
    "backup, flash memory": re.compile(r"nvram|temporary file \(2\)|(read|remove) temporary"),
}

# What happens at each moment of a command, one after the other. The domain of "no agent" does what
# the one of "running" does, where the command alone is killed; it may be destroyed as well.
_KILLED = ("killed",)
_OTHERS = (
    "target full", "domain destroyed", "killed, domain destroyed", "libvirtd killed",
    "killed, libvirtd killed",
)  # fmt: skip
_DEATHS = {
    "backup, no agent": _OTHERS,
    "backup, incremental": (
        *_KILLED, "libvirtd killed", "killed, libvirtd killed", "killed, domain destroyed",
        "target full",
    ),
    "backup, pull, no agent": _OTHERS,
    "backup, shut off": (*_KILLED, "libvirtd killed", "target full"),
    "backup, flash memory": (*_KILLED, "domain destroyed", "target full"),
}  # fmt: skip
# What can happen at one moment only, beside what happens at each.
_ONLY_AT = {
    ("backup, running", "before snapshotCreateXML"): (
        "killed, libvirtd killed, guest frozen", "libvirtd killed, guest frozen",
    ),
    ("backup, pull", "after fsFreeze"): ("libvirtd killed", "killed, libvirtd killed"),
    ("backup, pull", "after fsThaw"): (f"killed, {SCRATCH_FULL}",),
    # Before, the command would give up, sooner or later.
    ("backup, pull", "before abortJob"): (SCRATCH_FULL, f"killed, {SCRATCH_FULL}"),
}  # fmt: skip

# What continuous integration tries: each step once, by the kill alone or by each death in turn.
_IN_TURN = ("backup, no agent", "backup, incremental", "backup, pull, no agent")
_QUICK = {
    "backup, running": (
        "rename note|link pending|snapshotCreateXML|read image vda|blockCommit vda|pivot vd."
        "|remove overlay vda|rename definition|remove pending|remove note"
    ),
    "backup, running, tar.gz": "create package|sync package|rename definition",
    "backup, shut off": "rename note|link pending|create package vda|read image vda",
    "backup, shut off, tar.gz": "create package",
    "backup, no agent": ".*",
    "backup, pull": "fsFreeze|backupBegin|fsThaw|read export|abortJob|rename definition",
    "backup, incremental": (
        "backupBegin|read export|abortJob|rename index|link map vdb|rename definition"
        "|delete checkpoint"
    ),
    "backup, pull, no agent": "link pending|backupBegin|read export|abortJob|sync package vda",
    "backup, flash memory": "read image nvram|create package nvram",
    "undo, running": "blockCommit vda|pivot vda|remove overlay vda|remove pending|remove note",
    "undo, destroyed": "qemu-img commit overlay vda|updateDeviceFlags vda|remove overlay vda",
    "copy": "link pending|create package vda|sync package vdb|rename definition|remove pending",
    "restore": "create part vda|sync part vdb|(link|rename) image vda|create domain XML",
}


def planned_rows(points: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return all faults to try, without outcomes.

    Args:
        points: of each scenario, as recorded.
    """
    rows = []
    for scenario, passed in points.items():
        moments = _moments(passed)
        for point in passed:
            rows += [Row(scenario, point, death) for death in _deaths(scenario, point, moments)]
    return rows


def _deaths(scenario: str, point: str, moments: Sequence[str]) -> Sequence[str]:
    steps = _STEPS.get(scenario)
    if steps and not steps.search(point):
        return ()
    always = _DEATHS.get(scenario, _KILLED) if point in moments else ()
    return (*always, *_ONLY_AT.get((scenario, point), ()))


def _moments(points: Sequence[str]) -> list[str]:
    """Leave out each point before a call that is the same moment as the one after the last call.

    Before a file is synced its data was written, which passes no point of its own.
    """
    return [
        point
        for index, point in enumerate(points)
        if index == 0 or not point.startswith("before ") or _WRITTEN.match(point)
    ]


def quick_rows(rows: Sequence[Row]) -> list[Row]:
    """Return what is tried in every run, and not in whole runs alone."""
    chosen = []
    for scenario, group in groupby(rows, attrgetter("scenario")):
        of_scenario = list(group)
        what = f"(after|during) ({_QUICK.get(scenario, '')})"
        moments = _moments(list(dict.fromkeys(row.point for row in of_scenario)))
        steps = [point for point in moments if re.fullmatch(what, point)]
        chosen += [row for row in of_scenario if row.death in _quick_deaths(row, steps)]
    return chosen


def _quick_deaths(row: Row, steps: Sequence[str]) -> Sequence[str]:
    only_here = _ONLY_AT.get((row.scenario, row.point), ())
    if row.point not in steps:
        return only_here
    deaths = _DEATHS[row.scenario] if row.scenario in _IN_TURN else _KILLED
    return (deaths[steps.index(row.point) % len(deaths)], *only_here)


def read_rows(page: Path = PAGE) -> list[Row]:
    """Return the rows of the page, with their outcomes."""
    found = _BLOCK.search(page.read_text()) if page.exists() else None
    rows, scenario = [], ""
    for line in found[0].splitlines() if found else ():
        if line.startswith("### "):
            scenario = line.removeprefix("### ").lower()
        elif line.startswith("| ") and line not in _HEAD:
            rows.append(Row(scenario, *(cell.strip() for cell in line.strip("|").split("|"))))
    return rows


def write_rows(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put the rows into the page, in their order."""
    parts = [f"{len(rows)} faults.\n"]
    for scenario, group in groupby(rows, attrgetter("scenario")):
        lines = ["| " + " | ".join(row[1:]) + " |" for row in group]
        parts.append("\n".join([f"### {scenario.capitalize()}", "", _HEAD, *lines, ""]))
    text = "\n".join(parts)
    page.write_text(_BLOCK.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page.read_text()))
