"""``virtbackup config check``: report what is wrong or out of date in the configuration."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.config.loading import examine, find_config
from virtbackup_async.config.problems import Remark
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, Finding, Level
from virtbackup_async.reporting.text import count

AUTOSTART = (
    "has no autostart key: `virtbackup backup` without its name passes over it, and virt-backup "
    "0.5.6 would back it up: write autostart: true or false"
)


@subcommand("check")
@click.option("--strict", is_flag=True, help="Exit with 2 for warnings as well.")
@shared_options
def command(settings: Settings, *, strict: bool) -> None:
    """Report what is wrong or out of date in the configuration file.

    The exit status is 2 if the file cannot be used, or has a key that looks like a typo; other
    warnings alone leave it at 0.
    """
    report = partial(reports.findings, all_shown=not settings.quiet, counted="finding")
    run(settings, lambda _: Job(partial(_check, settings.config_path, strict=strict)), report)


async def _check(path: Path | None, emit: Emit, *, strict: bool) -> None:
    path = path or find_config()
    findings = list(_findings(path))
    for finding in findings or [
        Finding(Level.OK, "configuration", str(path), "nothing is wrong", code="config_good")
    ]:
        emit(finding)
    grave = {Level.PROBLEM, Level.WARNING} if strict else {Level.PROBLEM}
    found = sum(finding.level in grave for finding in findings)
    if found:
        raise ConfigError(f"{count(found, 'thing')} to be changed", path=path)


def _findings(path: Path) -> Iterator[Finding]:
    try:
        config, problems = examine(path)
    except ConfigError as error:
        # It cannot be read at all; the path in the error may have a line and a column.
        yield Finding(
            Level.PROBLEM,
            "configuration",
            str(error.path or path),
            error.reason,
            error.hint,
            code="config_unreadable",
        )
        return
    for name in config.groups_without_autostart:
        problems.warn(("groups", name), AUTOSTART)
    typos = [remark for remark in problems.warnings if remark.is_typo]
    others = [remark for remark in problems.warnings if not remark.is_typo]
    yield from _of_level(Level.PROBLEM, [*problems.errors, *typos])
    yield from _of_level(Level.WARNING, others)


_CODES = {Level.PROBLEM: "key_wrong", Level.WARNING: "key_outdated"}


def _of_level(level: Level, remarks: Iterable[Remark]) -> Iterator[Finding]:
    for remark in sorted(remarks, key=lambda remark: remark.line):
        code = "key_misspelled" if remark.is_typo else _CODES[level]
        advice = f"Write instead:\n{remark.instead}" if remark.instead else None
        yield Finding(level, "configuration", remark.place, remark.message, advice, code=code)
