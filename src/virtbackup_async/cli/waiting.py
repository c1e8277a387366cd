"""The option ``--wait``: how long to wait for a domain that somebody else works on."""

from math import inf

import click

FOREVER = "forever"


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    if value == FOREVER:
        return inf
    try:
        wait_s = float(value)
    except ValueError:
        wait_s = -1
    if not 0 <= wait_s < inf:
        raise click.BadParameter(f"{value!r} is neither a number of seconds nor {FOREVER!r}.")
    return wait_s


wait_option = click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    default="0",
    callback=_seconds,
    help="Wait so long, or forever, for a domain that somebody else works on.",
)
