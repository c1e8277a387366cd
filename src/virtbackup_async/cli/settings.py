"""What was asked for on the command line, apart from the command's own arguments."""

import logging
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that every command takes.

    Attributes:
        config_path: None to look in the usual places.
        progress: False under ``--no-progress``.
    """

    config_path: Path | None = None
    debug: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True

    def log_level(self, *, debug: bool) -> int:
        """The least level of the log that is shown; ``debug`` is also the configuration's word."""
        if debug:
            return logging.DEBUG
        if self.quiet:
            return logging.ERROR
        return logging.INFO if self.verbose else logging.WARNING
