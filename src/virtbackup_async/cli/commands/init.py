"""``virtbackup init``: look around on this host, propose a configuration, and write it."""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.api.setup import survey_host, write_configuration
from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.cli import questions
from virtbackup_async.cli.init_dialog import ask_choices
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.config.loading import load_config, new_config_path
from virtbackup_async.config.new_file import NewConfig
from virtbackup_async.engine.setup.proposal import (
    Choices,
    directory_on,
    is_safe,
    propose,
    rank,
)
from virtbackup_async.engine.setup.site import Site
from virtbackup_async.engine.setup.target import beyond_doctor, description, judge, look_at_target
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, Finding, Level, Warned
from virtbackup_async.model.packager import PACKAGER_TYPES, SHARING_TYPE


class _Wanted(Struct, frozen=True):
    """The options of the command, by the names that click has for them."""

    target: Path | None
    domains: tuple[str, ...]
    packager: str | None
    uri: str | None
    yes: bool
    force: bool
    dry_run: bool

    @property
    def asks(self) -> bool:
        return not (self.yes or self.dry_run)


@subcommand("init")
@click.option(
    "--target", metavar="DIR", type=click.Path(path_type=Path), help="Where the backups go."
)
@click.option(
    "-D",
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    help="Back up this domain; may be repeated. Without it: every domain, later ones too.",
)
@click.option(
    "--packager",
    type=click.Choice([*PACKAGER_TYPES]),
    help=f"How backups are stored; without it: {SHARING_TYPE}.",
)
@click.option("--uri", metavar="URI", help="Which libvirt to ask; without it: its default.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed.")
@click.option("--force", is_flag=True, help="Replace a file; the old one stays as FILE.bak.")
@click.option("--dry-run", is_flag=True, help="Ask and write nothing; print what is proposed.")
@shared_options
def command(settings: Settings, **options: Any) -> None:  # noqa: ANN401 -- see _Wanted
    """Look around on this host, propose a configuration, and write it.

    Asks libvirt for its domains and the host for its file systems, and then you, with a default for
    each question. Nothing is written before you have seen the file. Then "doctor" says whether
    backups would work.

    virtbackup init --yes --target /mnt/backups/virtbackup asks nothing.
    """
    wanted = _Wanted(**options)
    if wanted.asks and settings.json:
        raise click.UsageError("--json asks nothing: add --yes, and --target DIR")
    if wanted.asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("There is no terminal to ask on: add --yes, and --target DIR")
    # A view that redraws the screen would draw over the questions.
    settings = replace(settings, progress=settings.progress and not wanted.asks)
    work = partial(_init, wanted, settings.config_path)
    report = None if settings.quiet else partial(reports.init, all_shown=settings.verbose)
    run(settings, lambda _: Job(work), report)


async def _init(wanted: _Wanted, path: Path | None, emit: Emit) -> None:
    path = path or new_config_path()
    replaces = await _may_replace(wanted, path)
    if wanted.asks:
        questions.say("Looking at libvirt and the file systems ...")
    site = await survey_host((wanted.uri,) if wanted.uri else ())
    for domain in site.domains:
        emit(domain)
    for file_system in site.file_systems:
        emit(file_system)
    if not site.domains:
        emit(Warned(f"libvirt at {site.uri} has no domains: --uri names another libvirt"))
    chosen = Choices(wanted.target, wanted.domains or None, wanted.packager or SHARING_TYPE)
    choose = ask_choices if wanted.asks else _choose
    new, warnings = await choose(site, chosen, path)
    emit(await write_configuration(new, path, replace=replaces, dry_run=wanted.dry_run))
    for warning in warnings:
        emit(warning)
    if not wanted.dry_run:
        config = await to_thread.run_sync(load_config, path)
        async with open_virtbackup(config, on_event=emit) as vb:
            await vb.doctor()


async def _may_replace(wanted: _Wanted, path: Path) -> bool:
    """Return whether a file that is there is replaced.

    Raises:
        ConfigError: it is there, and is not to be.
    """
    if wanted.dry_run or not await to_thread.run_sync(os.path.lexists, path):
        return False
    if wanted.force:
        return True
    if not wanted.asks:
        hint = "Add --force to replace it: the old one stays as FILE.bak."
        raise ConfigError("is there already", path=path, hint=hint)
    question = f"{path} is there already. Make a new one? The old one stays as {path.name}.bak"
    if not await questions.confirm(question, default=False):
        raise ConfigError(questions.NOTHING_WRITTEN, path=path)
    return True


async def _choose(
    site: Site, chosen: Choices, _path: Path
) -> tuple[NewConfig, tuple[Finding, ...]]:
    """Take what was given and what is proposed, without a question.

    Raises:
        ConfigError: no target is given, and none is safe to take; or it cannot be one.
        NotFoundError: libvirt does not know a domain.
    """
    target = chosen.target or _safe_target(site)
    seen = await look_at_target(site, target)
    for finding in judge(site, seen):
        if finding.level is Level.PROBLEM:
            raise ConfigError(f"{finding.message}", path=target, hint=finding.advice)
    new = propose(site, chosen, target, description(seen))
    return new, tuple(beyond_doctor(site, seen))


def _safe_target(site: Site) -> Path:
    best = next(iter(rank(site)), None)
    if best is None or not is_safe(best):
        raise ConfigError(
            "there is no file system on a disk without images, and none was named",
            hint="Name a directory with --target.",
        )
    return directory_on(Path(best.path))
