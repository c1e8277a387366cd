"""What a shell offers on Tab: groups, domains that have backups, their dates and disks.

The completion is cheap: it reads the configuration, the names of files, and one definition for the
disks; it never asks libvirt. If anything goes wrong, it offers nothing: a prompt is no place for
errors.

bash takes ``@`` for the end of a word: of ``web@2026`` it passes ``web``, ``@`` and ``2026``, and
wants to hear of dates alone. zsh and fish pass it whole, and want it whole.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from virtbackup_async.cli.options import Settings
from virtbackup_async.errors import VirtBackupError

Completer = Callable[[click.Context, click.Parameter, str], list[str] | list[CompletionItem]]

_STAMP: Final = re.compile(r"(\d{4})(\d\d)(\d\d)-\d{6}(?=_.*\.json$)")


def group_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the groups of the configuration."""
    return _beginning(_targets(ctx), incomplete)


def domain_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the domains that have backups, in all targets."""
    return _beginning(_domains(ctx, None), incomplete)


def groups_and_domains(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer groups, and domains that have backups."""
    return _beginning({*_targets(ctx), *_domains(ctx, None)}, incomplete)


def names_of_backups(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer groups, domains, and behind an ``@`` the dates of a domain's backups."""
    typed = _words(ctx)
    return _dates_behind_at(ctx, None, typed, incomplete) or groups_and_domains(
        ctx, _param, incomplete
    )


def backup_words(*others: Completer) -> Completer:
    """Return what completes ``[GROUP] DOMAIN[@DATE]`` and the words behind it, one for each."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[str] | list[CompletionItem]:
        typed = _words(ctx)
        group, rest = _without_group(ctx, typed)
        found = _dates_behind_at(ctx, group, rest, incomplete)
        if found:
            return found
        rest = _joined(rest)
        if not rest:
            names = {*_domains(ctx, group), *(() if group else _targets(ctx))}
            return _beginning(names, incomplete)
        place = len(rest) - 1
        return others[place](ctx, param, incomplete) if place < len(others) else []

    return complete


def dates(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the dates of the backups of the typed domain."""
    group, rest = _without_group(ctx, _words(ctx))
    return _beginning(_dates(ctx, group, rest[0]), incomplete) if rest else []


def disk_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the disks of the newest backup of the typed domain."""
    group, rest = _without_group(ctx, _words(ctx))
    if not rest:
        return []
    domain = _joined(rest)[0]
    bare = domain.rpartition("@")[0] or domain
    return _beginning(_disks(ctx, group, bare), incomplete)


def directories(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell offer directories."""
    return [CompletionItem(incomplete, type="dir")]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer files."""
    return [CompletionItem(incomplete, type="file")]


def _words(ctx: click.Context) -> list[str]:
    found = (ctx.params.get(name) for name in ("words", "backups", "backup", "groups"))
    # Behind an option that still lacks its value, click has left the words where they were.
    typed = [[words] if isinstance(words, str) else words or () for words in found]
    return [word for words in typed for word in words] or list(ctx.args)


def _without_group(ctx: click.Context, typed: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the group that was typed first, and the words behind it."""
    is_group = bool(typed) and typed[0] in _targets(ctx)
    return (typed[0], list(typed[1:])) if is_group else (None, list(typed))


def _joined(words: Sequence[str]) -> list[str]:
    """Return the words as typed, where bash has split them at each ``@``."""
    joined: list[str] = []
    for word in words:
        if joined and (word == "@" or joined[-1].endswith("@")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _dates_behind_at(
    ctx: click.Context, group: str | None, words: Sequence[str], incomplete: str
) -> list[str]:
    if incomplete == "@" and words:
        return _beginning(_dates(ctx, group, words[-1]), "")
    if len(words) > 1 and words[-1] == "@":
        return _beginning(_dates(ctx, group, words[-2]), incomplete)
    domain, at, _ = incomplete.rpartition("@")
    return (
        _beginning((f"{domain}@{one}" for one in _dates(ctx, group, domain)), incomplete)
        if (at)
        else []
    )


def _targets(ctx: click.Context) -> dict[str, str | None]:
    """Return each group's target; ``-c`` before the command counts, and ``--target``."""
    settings = ctx.ensure_object(Settings)
    above = ctx.parent.params.get("config_path") if ctx.parent else None
    named = ctx.params.get("config_path") or settings.config_path or above
    settings = replace(settings, config_path=named)
    try:
        groups = settings.load_config().groups
    except VirtBackupError:
        return {}
    # Nobody waits at a prompt for a server: only directories are looked into.
    return {
        name: str(group.target) if group.target and group.target.is_local else None
        for name, group in groups.items()
    }


def _places(ctx: click.Context, group: str | None) -> list[str]:
    targets = _targets(ctx)
    wanted = [targets[group]] if group in targets else list(targets.values())
    return list(dict.fromkeys(filter(None, wanted)))


def _domains(ctx: click.Context, group: str | None) -> Iterator[str]:
    """Yield the directories of domains; what begins with a dot is the program's own."""
    for target in _places(ctx, group):
        with suppress(OSError), os.scandir(target) as entries:
            yield from (entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())


def _definitions(ctx: click.Context, group: str | None, domain: str) -> list[Path]:
    """Return the definitions of a domain, oldest first."""
    if "/" in domain or domain.startswith("."):
        return []
    found: list[Path] = []
    for target in _places(ctx, group):
        with suppress(OSError):
            found += [path for path in Path(target, domain).iterdir() if _STAMP.match(path.name)]
    return sorted(found, key=lambda path: path.name)


def _dates(ctx: click.Context, group: str | None, domain: str) -> Iterator[str]:
    """Yield the dates of a domain's backups: the day if it has one alone, else each moment."""
    stamps = [path.name[: len("20260301-021500")] for path in _definitions(ctx, group, domain)]
    backups_of = Counter(stamp[: len("20260301")] for stamp in stamps)
    for stamp in stamps:
        day = stamp[: len("20260301")]
        yield stamp if backups_of[day] > 1 else f"{day[:4]}-{day[4:6]}-{day[6:]}"
    if stamps:
        yield "latest"


def _disks(ctx: click.Context, group: str | None, domain: str) -> Iterable[str]:
    import msgspec  # noqa: PLC0415 -- only for disks

    from virtbackup_async.catalog.raw_json import read_host_file  # noqa: PLC0415

    for path in reversed(_definitions(ctx, group, domain)):
        with suppress(OSError, msgspec.MsgspecError, UnicodeError, RecursionError, VirtBackupError):
            found = msgspec.json.decode(read_host_file(path), type=dict[str, object]).get("disks")
            return list(found) if isinstance(found, dict) else []
    return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    # No name may end its line, or mean something to the script of the shell.
    return sorted({name for name in names if name.startswith(incomplete) and name.isprintable()})
