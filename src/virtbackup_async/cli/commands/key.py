"""``virtbackup key``: who can open an encrypted repository.

A passphrase or a recovery key is typed on the terminal, and never an argument: other users see the
arguments of a process.
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.lazy_commands import EXIT_STATUSES, Entry, LazyGroup, subcommand
from virtbackup_async.cli.options import Decorator, Settings, shared_options, target_alone_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.cli.typed_keys import typed
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.events import Emit
from virtbackup_async.model.storage_location import StorageLocation

if TYPE_CHECKING:
    from virtbackup_async.engine.setup.keys import Paper
    from virtbackup_async.repository import Key

_MODULE = "virtbackup_async.cli.commands.key"


class KeyCommands(LazyGroup):
    """The commands below ``virtbackup key``."""

    entries = {  # noqa: RUF012 -- never changed
        "list": Entry(_MODULE, "List the keys that open a repository.", attribute="list_"),
        "add": Entry(_MODULE, "Let another key open it as well.", attribute="add"),
        "remove": Entry(_MODULE, "Remove a key.", attribute="remove"),
        "rotate": Entry(
            _MODULE, "Seal all that is written from now on with a new key.", attribute="rotate"
        ),
        "paper": Entry(_MODULE, "Make a recovery key, and print it.", attribute="paper"),
    }


@click.group("key", cls=KeyCommands, epilog=EXIT_STATUSES)
def command() -> None:
    """List and change the keys that open an encrypted repository."""


class _Opening:
    """How the repository is found and opened, as the options say."""

    def __init__(
        self,
        settings: Settings,
        group: str | None,
        key_file: Path | None = None,
        *,
        passphrase: bool = False,
        recovery: bool = False,
    ) -> None:
        if sum((key_file is not None, passphrase, recovery)) > 1:
            raise click.UsageError("--key-file, --passphrase and --recovery exclude each other")
        self._settings = settings
        self._group = group
        self._key_file = key_file
        self._passphrase = passphrase
        self._recovery = recovery

    def location(self) -> StorageLocation:
        """Return where the target is."""
        if self._settings.target is not None:
            return StorageLocation.of(self._settings.target)
        from virtbackup_async.engine.setup.keys import only_one  # noqa: PLC0415 -- see above

        groups = self._settings.load_config().groups
        if self._group is None:
            return only_one([group.target for group in groups.values() if group.target])
        if self._group not in groups:
            raise NotFoundError(f"unknown group: {self._group}")
        target = groups[self._group].target
        if target is None:
            raise ConfigError(f"group {self._group} has no target")
        return target

    def key(self) -> "Key":
        """Return the key, typed if need be."""
        from virtbackup_async.repository import (  # noqa: PLC0415 -- see above
            key_of_file,
            key_of_paper,
            key_of_passphrase,
        )

        if self._passphrase:
            return key_of_passphrase(typed("Passphrase"))
        if self._recovery:
            return key_of_paper(typed("Recovery key"))
        key_file = self._key_file or self.location().key_file
        if key_file is None:
            raise ConfigError(
                "no key is named", hint="Give --key-file, --passphrase or --recovery."
            )
        return key_of_file(key_file)


_OPENING: tuple[Decorator, ...] = (
    click.option(
        "--key-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Open it with this key file, in place of the one in the configuration.",
    ),
    click.option("--passphrase", is_flag=True, help="Open it with a passphrase, which is asked."),
    click.option("--recovery", is_flag=True, help="Open it with a recovery key, which is asked."),
    target_alone_option,
    shared_options,
)
_GROUP: Decorator = click.argument(
    "group", metavar="[GROUP]", required=False, shell_complete=group_names
)
_LABEL: Decorator = click.option("--label", metavar="TEXT", help="Says whose key it is.")


def _opening(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that find and open a repository; the function gets them as ``opening``."""

    def with_opening(
        settings: Settings,
        group: str | None = None,
        *,
        key_file: Path | None,
        passphrase: bool,
        recovery: bool,
        **rest: object,
    ) -> None:
        opening = _Opening(settings, group, key_file, passphrase=passphrase, recovery=recovery)
        function(settings, opening, **rest)

    wrapped: Callable[..., None] = wraps(function)(with_opening)
    for decorator in reversed(_OPENING):
        wrapped = decorator(wrapped)
    return wrapped


def _run(settings: Settings, prepare: Callable[[], Callable[[Emit], Awaitable[None]]]) -> NoReturn:
    report = partial(reports.findings, all_shown=not settings.quiet, counted="finding")
    run(settings, lambda _emit: Job(prepare()), report)


@subcommand("list")
@_GROUP
@target_alone_option
@shared_options
def list_(settings: Settings, group: str | None) -> None:
    """List the keys that open the repository of GROUP's target; needs none of them.

    Without a GROUP, of the only encrypted target in the configuration.
    """
    from virtbackup_async.engine.setup.keys import list_keys  # noqa: PLC0415 -- see above

    _run(settings, lambda: partial(list_keys, _Opening(settings, group).location()))


@subcommand("add")
@_GROUP
@click.option(
    "--new-key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Add this key file, and make it if it is missing.",
)
@click.option("--new-passphrase", is_flag=True, help="Add a passphrase, which is asked.")
@_LABEL
@_opening
def add(
    settings: Settings,
    opening: _Opening,
    *,
    new_key_file: Path | None,
    new_passphrase: bool,
    label: str | None,
) -> None:
    """Let another key open the repository of GROUP's target as well.

    On a new host, with a recovery key: "virtbackup key add --target DIR --recovery --new-key-file
    FILE".
    """
    if (new_key_file is None) is not new_passphrase:
        raise click.UsageError("give either --new-key-file or --new-passphrase")
    _run(settings, lambda: _add(opening, new_key_file, label))


def _add(
    opening: _Opening, path: Path | None, label: str | None
) -> Callable[[Emit], Awaitable[None]]:
    from virtbackup_async.engine.setup import keys  # noqa: PLC0415 -- see above
    from virtbackup_async.repository import key_of_passphrase  # noqa: PLC0415 -- see above

    key, location = opening.key(), opening.location()
    if path is not None:
        return lambda emit: keys.add_key_file(location, key, path, label or str(path), emit)
    new = key_of_passphrase(typed("New passphrase", twice=True), is_new=True)
    return lambda emit: keys.add_key(location, key, new, label or "passphrase", emit)


@subcommand("remove")
@click.argument("name", metavar="KEY")
@_GROUP
@_opening
def remove(settings: Settings, opening: _Opening, *, name: str) -> None:
    """Remove a key of the repository of GROUP's target; "list" shows its name, KEY.

    Whoever had the key may have kept what it opened. "rotate" keeps them out of what is written
    from then on.
    """
    from virtbackup_async.engine.setup.keys import remove_key  # noqa: PLC0415 -- see above

    _run(settings, lambda: partial(remove_key, opening.location(), opening.key(), name))


@subcommand("rotate")
@_GROUP
@click.option(
    "--and-key-file",
    "other_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another key file that opens the repository; may be repeated.",
)
@click.option(
    "--and-passphrases",
    metavar="N",
    default=0,
    type=click.IntRange(0, 20),
    help="So many passphrases open it as well; each is asked.",
)
@_opening
def rotate(
    settings: Settings, opening: _Opening, *, other_files: tuple[Path, ...], and_passphrases: int
) -> None:
    """Seal all that is written from now on with a new key.

    All other keys that "list" shows are needed, but for recovery keys. What is stored already is
    not sealed anew: "copy" does that, into a new repository.
    """
    _run(settings, lambda: _rotate(opening, other_files, and_passphrases))


def _rotate(
    opening: _Opening, files: tuple[Path, ...], passphrases: int
) -> Callable[[Emit], Awaitable[None]]:
    from virtbackup_async.engine.setup.keys import rotate_keys  # noqa: PLC0415 -- see above
    from virtbackup_async.repository import (  # noqa: PLC0415 -- see above
        key_of_file,
        key_of_passphrase,
    )

    key = opening.key()
    others = [key_of_file(path) for path in files]
    others += [key_of_passphrase(typed("Other passphrase")) for _ in range(passphrases)]
    return partial(rotate_keys, opening.location(), key, others)


@subcommand("paper")
@_GROUP
@_LABEL
@click.option(
    "--public",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Make a recovery key for repositories that are sealed for it; needs no target. FILE gets "
    "the half that is no secret: 'sealed_for' in the configuration of hosts.",
)
@_opening
def paper(settings: Settings, opening: _Opening, *, label: str | None, public: Path | None) -> None:
    """Make a recovery key for the repository of GROUP's target, and print it to stdout.

    As text and as a QR code, for paper that is kept away from the host. The program keeps no copy:
    each call makes another key.
    """
    if settings.json:
        raise click.UsageError("--json needs stdout, and so does the key")
    if public is not None:
        run(settings, lambda _emit: Job(partial(_paper_alone, public)), None)
    run(settings, lambda _emit: Job(_paper(opening, label)), None)


async def _paper_alone(public: Path, _emit: Emit) -> None:
    from virtbackup_async.engine.setup.keys import make_paper  # noqa: PLC0415 -- see above

    _print_paper(await make_paper(public))


def _paper(opening: _Opening, label: str | None) -> Callable[[Emit], Awaitable[None]]:
    from virtbackup_async.engine.setup.keys import add_paper  # noqa: PLC0415 -- see above

    key, location = opening.key(), opening.location()

    async def work(_emit: Emit) -> None:
        _print_paper(await add_paper(location, key, label or "paper"))

    return work


def _print_paper(made: "Paper") -> None:
    from virtbackup_async.cli.render.paper import lines_of  # noqa: PLC0415 -- see above

    for line in lines_of(made.target, made.text):
        click.echo(line)
