"""The arguments that several commands share, each with what a shell offers for it."""

from collections.abc import Callable

import click

from virtbackup_async.cli.completion import (
    Completer,
    backup_words,
    dates,
    domain_names,
    group_names,
    groups_and_domains,
)
from virtbackup_async.cli.options import Decorator

groups_argument: Decorator = click.argument(
    "groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names
)

words_argument: Decorator = click.argument(
    "groups", metavar="[GROUP|DOMAIN]...", nargs=-1, shell_complete=groups_and_domains
)


def domains_option(text: str) -> Decorator:
    """Return ``-D``, which names domains; ``text`` is its help."""
    return click.option(
        "-D",
        "--domain",
        "domains",
        metavar="DOMAIN",
        shell_complete=domain_names,
        multiple=True,
        help=text,
    )


def split_at_commas(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that an option was given, one by one: ``vda,vdb`` names two."""
    return tuple(name for value in values for name in value.split(",") if name)


def one_backup(
    *others: str, or_earlier: bool, completed_by: tuple[Completer, ...] = ()
) -> Decorator:
    """Return ``words``, which name one backup for ``backup_of``, and ``--date``.

    Args:
        others: how the help shows the words behind the backup.
        or_earlier: the command takes the last backup before the date if there is none of it.
        completed_by: what a shell offers for each of ``others``.
    """
    earlier = "or else the last one before it, " if or_earlier else ""
    text = (
        f"The last backup of this month, day, hour, minute or second, {earlier}or the one of this "
        "name; without it, the last one. DOMAIN@DATE means the same."
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for parameter in (
            click.option("--date", metavar="DATE", help=text, shell_complete=dates),
            click.argument(
                "words",
                metavar=" ".join(("[GROUP] DOMAIN[@DATE]", *others)),
                nargs=-1,
                shell_complete=backup_words(*completed_by),
            ),
        ):
            function = parameter(function)
        return function

    return decorate
