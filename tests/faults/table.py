"""The table of docs/crash-safety.md: which faults there are, and what came of each.

``planned_rows`` says which faults are to be tried, from the points that commands really pass; the
page holds the outcomes of the last whole run. The tests read their rows from the page, and fail
where it does not name what is planned. ``scripts/update-crash-table`` writes it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from faults.runs import Row

PAGE = Path(__file__).parents[2] / "docs" / "crash-safety.md"
COMMAND = "scripts/update-crash-table"
_BLOCK = re.compile(r"(<!-- measured: crash table -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = "| Point | Death | Command | Backups after clean |\n|---|---|---|---|"
_WRITTEN = re.compile("before sync (package|part|temporary)")
_PACKAGE = re.compile("package|definition")

_OTHER_DEATHS = (
    ("domain destroyed", "killed, domain destroyed", "libvirtd killed", "killed, libvirtd killed"),
    (
        "after snapshotCreateXML", "after read image vda", "after blockCommit vda",
        "before pivot vda", "after pivot vda", "after remove overlay vda", "after pivot vdb",
        "before rename definition",
    ),
)  # fmt: skip
_FULL = (
    "before create pending", "before sync temporary file", "after snapshotCreateXML",
    "after read image vda", "before create temporary file (2)", "before create temporary file (4)",
    "before remove pending",
)  # fmt: skip
_FROZEN = ("killed, libvirtd killed, guest frozen", "libvirtd killed, guest frozen")

# What continuous integration tries: each step once, those that matter with every death.
_QUICK = {
    "backup, running": (
        "create pending|create temporary file.*|rename pending|getTime|snapshotCreateXML"
        "|create package vd.|read image vda|sync package vda|blockCommit vd.|blockJobInfo vda"
        "|pivot vd.|remove overlay vd.|rename definition|remove pending"
    ),
    "backup, running, tar.gz": "create package|sync package|rename definition",
    "backup, shut off": "rename pending|create package vda|read image vda",
    "backup, shut off, tar.gz": "create package",
    "undo, running": "blockCommit vda|pivot vda|remove overlay vda|remove pending",
    "undo, destroyed": "qemu-img commit overlay vda|updateDeviceFlags vda|remove overlay vda",
    "restore": "create part vda|sync part vdb|(link|rename) image vda|create domain XML",
}
_QUICK_OTHERS = {
    ("after blockCommit vda", "domain destroyed"),
    ("after snapshotCreateXML", "killed, domain destroyed"),
    ("after pivot vdb", "killed, domain destroyed"),
    ("after read image vda", "libvirtd killed"),
    ("before pivot vda", "killed, libvirtd killed"),
    ("after read image vda", "target full"),
}


def planned_rows(points: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return all faults to try, without outcomes.

    Args:
        points: of each scenario, as recorded.
    """
    rows = []
    for scenario, passed in points.items():
        if scenario == "backup, no agent":
            deaths, at = _OTHER_DEATHS
            rows += [Row(scenario, point, death) for point in at for death in deaths]
            rows += [Row(scenario, point, "target full") for point in _FULL]
            continue
        is_second = scenario.endswith("tar.gz")
        for point in _moments(passed):
            if not is_second or _PACKAGE.search(point):
                rows.append(Row(scenario, point, "killed"))
        if scenario == "backup, running":
            rows += [Row(scenario, "before snapshotCreateXML", death) for death in _FROZEN]
    return rows


def _moments(points: Sequence[str]) -> list[str]:
    """Leave out each point before a call that is the same moment as the one after the last call.

    Before a file is synced its data was written, which passes no point of its own.
    """
    return [
        point
        for index, point in enumerate(points)
        if index == 0 or not point.startswith("before ") or _WRITTEN.match(point)
    ]


def is_quick(row: Row) -> bool:
    """Whether the fault is tried in every run, and not in whole runs alone."""
    if row.death != "killed":
        return row.death in _FROZEN or (row.point, row.death) in _QUICK_OTHERS
    what = f"(after|during) ({_QUICK.get(row.scenario, '')})"
    return re.fullmatch(what, row.point) is not None


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


def write_rows(rows: Iterable[Row], page: Path = PAGE) -> None:
    """Put the rows into the page, in their order."""
    parts = []
    for scenario, group in groupby(rows, attrgetter("scenario")):
        lines = ["| " + " | ".join(row[1:]) + " |" for row in group]
        parts.append("\n".join([f"### {scenario.capitalize()}", "", _HEAD, *lines, ""]))
    text = "\n".join(parts)
    page.write_text(_BLOCK.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page.read_text()))
