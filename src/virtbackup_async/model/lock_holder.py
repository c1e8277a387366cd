"""Who holds the lock on a domain."""

from msgspec import Struct


class LockHolder(Struct, frozen=True):
    """A process of this machine that works on a domain.

    Attributes:
        doing: the purpose, such as ``backup of group main``; None if the process does not say.
        since: when it took the lock, in seconds since the epoch; None like ``doing``.
    """

    pid: int
    doing: str | None = None
    since: float | None = None
