"""``virtbackup check``: one line for a monitoring."""

import sys

import click

from virtbackup_async.cli.arguments import words_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.with_config import configured
from virtbackup_async.config.schema import Config
from virtbackup_async.errors import BackupsFailedError, ConfigError
from virtbackup_async.model.amounts import age_of


def _age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not age_of(value):
        raise click.BadParameter(f"{value!r} is no length of time, such as 26h or 2d.")
    return value


@subcommand("check")
@words_argument
@click.option(
    "--max-age",
    metavar="AGE",
    callback=_age,
    help="How old the newest good backup of a guest may be (26h, 2d); without it, max_age of its "
    "group. Needed with --target.",
)
@target_option
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, max_age: str | None) -> None:
    """Print one line for a monitoring, with performance data, and exit as its plugins do.

    The exit status is 0 if each guest has a good backup that is young enough, 1 if one of them has
    another flaw, 2 if a guest has no such backup, and 3 if that cannot be found out.
    """

    def load() -> Config:
        try:
            return settings.load_config()
        except ConfigError as error:
            if not settings.json:
                said = " ".join(error.message.split())
                sys.stdout.write(f"VIRTBACKUP UNKNOWN - {ascii(said)[1:-1].replace('|', '/')}\n")
            # Its own exit status would be critical.
            raise error.as_kind(BackupsFailedError, hint=error.hint) from error

    job = configured(load, lambda vb: vb.check(groups, max_age=max_age))
    run(settings, job, reports.health)
