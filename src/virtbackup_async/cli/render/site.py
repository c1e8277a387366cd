"""What ``init`` has found, and the configuration that it proposes."""

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.columns import Column, print_columns, size_or_blank
from virtbackup_async.cli.render.console import escaped
from virtbackup_async.cli.render.findings import print_findings
from virtbackup_async.cli.render.lines import print_command, print_line
from virtbackup_async.events import AgentState, DomainFound, FileSystemFound, Level, Summary
from virtbackup_async.reporting.reports.findings import Shown
from virtbackup_async.reporting.reports.setup import SetupReport
from virtbackup_async.reporting.text import count, printable

_AGENTS = {
    AgentState.ANSWERS: "answers",
    AgentState.SILENT: "does not answer",
    AgentState.NONE: "no channel",
    AgentState.UNKNOWN: "",
}
_DOMAINS = [
    *map(Column, ("domain", "state", "disks", "used", "guest agent")),
    Column("problem", wraps=True),
]
_FILE_SYSTEMS = [
    Column("mounted at"),
    Column("type"),
    Column("device", may_go=True),
    Column("free"),
    Column("total", may_go=True),
    Column("remark", wraps=True),
]


def print_site(
    console: Console,
    uri: str,
    domains: Sequence[DomainFound],
    file_systems: Sequence[FileSystemFound],
) -> None:
    """Print the domains and the file systems, each in a table."""
    print_line(console, f"{uri}: {count(len(domains), 'domain')}")
    print_columns(console, _DOMAINS, [_domain_row(found) for found in domains])
    console.print()
    print_columns(console, _FILE_SYSTEMS, [_file_system_row(found) for found in file_systems])
    console.print()


def _domain_row(found: DomainFound) -> dict[str, str]:
    return {
        "domain": found.domain,
        "state": "running" if found.running else "shut off",
        "disks": ", ".join(found.disks) or "none",
        "used": size_or_blank(found.used_bytes),
        "guest agent": _AGENTS[found.agent],
        "problem": found.error or "",
    }


def _file_system_row(found: FileSystemFound) -> dict[str, str]:
    return {
        "mounted at": found.path,
        "type": found.type,
        "device": found.source,
        "free": size_or_blank(found.free_bytes),
        "total": size_or_blank(found.total_bytes),
        "remark": _remark(found),
    }


def _remark(found: FileSystemFound) -> str:
    if found.unfit is not None:
        return found.unfit
    if found.images_of:
        return f"images of {count(len(found.images_of), 'domain')}"
    return "on the disk of images" if found.same_disk_as else ""


def print_written(
    report: SetupReport, console: Console, summary: Summary, *, all_shown: bool
) -> None:
    """Print the configuration that would be written; or what the doctor says, and what is next."""
    written = report.written
    if written is None:
        return
    if written.dry_run:
        _print_config(console, written.config)
        return
    shown = Shown.ALL if all_shown else Shown.WRONG
    print_findings(report.findings, console, summary, shown=shown, counted="check")
    print_line(console, f"written: {written.path}")
    if written.old is not None:
        print_line(console, f"the old one: {written.old}")
    problems, warnings = (
        len(report.findings.of(level)) for level in (Level.PROBLEM, Level.WARNING)
    )
    print_line(console, f"doctor: {count(problems, 'problem')}, {count(warnings, 'warning')}")
    if not problems:
        options = "" if written.found else f"-c {shlex.quote(printable(written.path))} "
        print_command(console, f"virtbackup {options}backup", head="next: ")
        print_command(console, f"virtbackup {options}systemd install", head="for every night: ")


def _print_config(console: Console, config: str) -> None:
    """Print the file as it is, to be kept; on a terminal without what that would obey."""
    for line in config.splitlines():
        text = escaped(console, line) if console.is_terminal else line
        console.print(Text(text), soft_wrap=True)
