"""The dialog of ``virtbackup init``: shows what was found, asks, and shows the file."""

import re
import sys
from pathlib import Path

from msgspec.structs import replace

from virtbackup_async.cli import questions
from virtbackup_async.config.new_file import NewConfig, write_config
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.setup.proposal import Choices, directory_on, propose, rank
from virtbackup_async.engine.setup.site import Site
from virtbackup_async.engine.setup.target import TargetSeen, description, judge, look_at_target
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.packager import PACKAGER_TYPES

_KEPT = ("daily", "weekly", "monthly")
_SEPARATORS = re.compile(r"[\s,/]+")
_MOST_KEPT = 100_000


async def ask_choices(
    site: Site, chosen: Choices, path: Path
) -> tuple[NewConfig, tuple[Finding, ...]]:
    """Ask for everything, and whether the file is to be written.

    Returns:
        the configuration, and no warning: all were shown.

    Raises:
        ConfigError: no answer came, or the answer was no.
    """
    _show(site)
    seen = await _ask_target(site, chosen.target)
    chosen = await _ask_domains(site, chosen)
    packager = await questions.ask_for(
        f"How to store them: {', '.join(PACKAGER_TYPES)}",
        chosen.packager,
        questions.one_of([*PACKAGER_TYPES]),
    )
    chosen = replace(chosen, packager=packager)
    new = propose(site, chosen, seen.path)
    question = "Freeze the file systems of guests whose agent answers, for the moment of a backup?"
    quiesce = await questions.confirm(question, default=new.quiesce)
    keep = await questions.ask_for(
        f"How many {', '.join(_KEPT)} backups to keep",
        " ".join(map(str, chosen.keep)),
        _counts,
    )
    chosen = replace(chosen, quiesce=quiesce, keep=keep)
    new = propose(site, chosen, seen.path, description(seen))
    questions.say()
    for line in write_config(new, path).splitlines():
        questions.say(f"  {line}")
    questions.say()
    if not await questions.confirm(f"Write this to {path}?"):
        raise ConfigError(questions.NOTHING_WRITTEN, path=path)
    return new, ()


def _show(site: Site) -> None:
    # Only a dialog needs rich here.
    from virtbackup_async.cli.render.console import text_console  # noqa: PLC0415 -- see above
    from virtbackup_async.cli.render.site import print_site  # noqa: PLC0415 -- see above

    print_site(text_console(sys.stderr), site.uri, site.domains, site.file_systems)


async def _ask_target(site: Site, given: Path | None) -> TargetSeen:
    """Ask until a directory is named that backups can go to."""
    proposed = next((directory_on(Path(found.path)) for found in rank(site)), None)
    default = str(given or proposed) if given or proposed else None
    while True:
        answer = await questions.ask("Where to store the backups", default)
        seen = await look_at_target(site, Path(answer))
        findings = judge(site, seen)
        for finding in findings:
            questions.say(f"  {finding.level}: {finding.subject} {finding.message}")
            questions.say(f"    -> {finding.advice}")
        if any(finding.level is Level.PROBLEM for finding in findings):
            continue
        if not findings or await questions.confirm("Store them there all the same?"):
            return seen


async def _ask_domains(site: Site, chosen: Choices) -> Choices:
    if chosen.domains is not None:
        return chosen
    if await questions.confirm("Back up every domain, also those that are defined later?"):
        return chosen
    known = [domain.domain for domain in site.domains]

    def parse(answer: str) -> tuple[str, ...]:
        # Names may have blanks in them, and even commas: the whole answer may be one.
        parts = [answer] if answer in known else [part.strip() for part in answer.split(",")]
        for name in parts:
            if name not in known:
                message = f"no domain {name!r}{did_you_mean(name, known)}"
                raise ValueError(message)
        return tuple(dict.fromkeys(parts))

    names = await questions.ask_for("Which ones, with commas between", ", ".join(known), parse)
    return replace(chosen, domains=names)


def _counts(answer: str) -> tuple[int, int, int]:
    words = _SEPARATORS.split(answer.strip())
    if len(words) != len(_KEPT) or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError("three whole numbers, such as 7 4 6")
    daily, weekly, monthly = (int(word) for word in words)
    if max(daily, weekly, monthly) > _MOST_KEPT:
        raise ValueError(f"at most {_MOST_KEPT}")
    return daily, weekly, monthly
