"""Questions on a terminal, each with a default; asked in a thread, so that signals are still heard.

They go to stderr: stdout is for results. A Ctrl-C leaves the thread that reads the answer behind;
it ends with the process. What comes from outside is shown escaped.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
import click
from anyio import to_thread

from virtbackup_async.errors import ConfigError
from virtbackup_async.reporting.text import printable

T = TypeVar("T")

NOTHING_WRITTEN = "nothing was written"


def say(text: str = "") -> None:
    """Write a line to the terminal."""
    click.echo(printable(text), err=True)


async def ask(question: str, default: str | None = None) -> str:
    """Return the answer: what was typed, or the default.

    Raises:
        ConfigError: there is no answer to come.
    """
    shown = printable(question if default is None else f"{question} [{default}]")
    return await _answer(lambda: click.prompt(shown, default, show_default=False, err=True))


async def ask_for(question: str, default: str | None, parse: Callable[[str], T]) -> T:
    """Ask until ``parse`` takes the answer; the text of its ValueError says what is wrong."""
    while True:
        answer = await ask(question, default)
        try:
            return parse(answer)
        except ValueError as error:
            say(f"  {error}")


async def confirm(question: str, *, default: bool = True) -> bool:
    """Return whether the answer is yes.

    Raises:
        ConfigError: there is no answer to come.
    """
    return await _answer(lambda: click.confirm(printable(question), default, err=True))


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """Return what takes one of these words."""

    def parse(answer: str) -> str:
        if answer.strip() not in words:
            message = f"one of {', '.join(words)}"
            raise ValueError(message)
        return answer.strip()

    return parse


async def _answer(question: Callable[[], T]) -> T:
    try:
        return await to_thread.run_sync(question, abandon_on_cancel=True)
    except click.Abort:
        say()
        raise ConfigError(f"no answer, so {NOTHING_WRITTEN}") from None
    except anyio.get_cancelled_exc_class():
        say()  # what is said now is not for the line of the question
        raise
