"""Jobs that need the configuration: read before there is a loop, its warnings told."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from virtbackup_async.cli.run import Job, Prepare
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.events import Emit, Warned

ConfiguredWork = Callable[[Config, Emit], Awaitable[None]]


def configured(path: Path | None, work: ConfiguredWork) -> Prepare:
    """What ``run`` needs, for work that takes the configuration."""

    def prepare(emit: Emit) -> Job:
        config = load_config(path)
        for warning in config.warnings:
            emit(Warned(warning))
        return Job(partial(work, config), debug=config.debug)

    return prepare
