"""What `doctor` and `config` found."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Level(StrEnum):
    """How much a finding of ``doctor`` or ``config check`` matters."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    """One thing that ``doctor`` or ``config`` looked at: what it is like, and what to do."""

    kind: ClassVar[str] = "finding"

    level: Level
    check: str
    subject: str
    message: str
    advice: str | None = None
