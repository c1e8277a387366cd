"""What a host remembers of the definitions that it has seen in a target.

Somebody who can write to a target can put an older state of it, or of one file, in place of the
present one: such a target is complete and valid. Only a memory outside of the target notices.
"""

from typing import Final

from msgspec import Struct

from virtbackup_async.model.guest import Guest

ROLLED_BACK: Final = "target_rolled_back"
EXCHANGED: Final = "definition_exchanged"
FORKED: Final = "definitions_forked"
CONTRADICTIONS: Final = frozenset({ROLLED_BACK, EXCHANGED, FORKED})
"""What a target may be found to be, that nothing legitimate explains."""
SEQUENCE_MAX: Final = 2**53
"""What every reader of JSON can represent; no target gets that many backups."""
_SHOWN_DIGITS: Final = 16


class SeenDefinition(Struct, frozen=True, gc=False):
    """A definition as this host has seen it; ``hash`` is ``blake3:`` and 64 digits."""

    name: str
    sequence: int
    hash: str

    @property
    def head(self) -> str:
        """Its sequence number and the first digits of its hash, to compare by eye."""
        return head_of(self.sequence, self.hash)


class RememberedDomain(Struct, frozen=True):
    """What this host remembers of one domain in one target.

    Attributes:
        uuid: the domain's; None if it is not known. A domain that has another one is another.
        sequence: the highest that this host has seen, whether that definition still exists or not.
        seen: the definitions that this host did not remove, by their sequence.
        missing: the newest one, if somebody else removed it; it counts until an admin accepts that.
        accepted: up to this sequence, an admin has accepted the target as it was.
    """

    domain: str
    uuid: str | None
    sequence: int
    seen: tuple[SeenDefinition, ...] = ()
    missing: SeenDefinition | None = None
    accepted: int = 0

    @property
    def guest(self) -> Guest:
        """The domain."""
        return Guest(self.domain, self.uuid)

    @property
    def newest(self) -> SeenDefinition | None:
        """The newest definition that the target should have."""
        return self.seen[-1] if self.seen else None


def head_of(sequence: int, definition_hash: str) -> str:
    """Return ``7:9f86d081884c7d65``: a sequence number, and the first digits of a hash."""
    return f"{sequence}:{definition_hash.partition(':')[2][:_SHOWN_DIGITS]}"
