"""All keys of a repository, which follow from its master secrets.

::

    master secret 1 --+-- key of chunk ids            the same for ever: equal chunks are found
                      +-- key of names                the same for ever: files are found by names
                      +-- id of the keys              public
                      +-- key of `repository`         authenticates the repository's description
                      `-- generation 1 ---+-- meta keys: heads of blobs, their checks, files
    master secret 2 ----- generation 2 ---+
                                          `-- wrapping key: wraps the key of each pack

Whoever rotates the keys adds a master secret. The last generation is used to write, all of them to
read. The wrapping key is the one key that chunks cannot be read without: a prune and a repair do
without it.
"""

from collections.abc import Sequence
from typing import Final, NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from virtbackup_async.repository.keys.secret import SECRET_BYTES, SHOWN, Secret

KEYS_ID_BYTES: Final = 16
MAX_GENERATIONS: Final = 256
_PURPOSE: Final = "virtbackup-async 2026-11 repository 2: "
_SIV_BYTES: Final = 64


class Generation:
    """The keys that follow from one master secret.

    Attributes:
        heads: seals the heads of blobs.
        checks: the secret from which each pack key's check key follows.
        files: the secret from which each file's key follows.
        wrapping: wraps the keys of packs; None in a process that may not read chunks.
    """

    __slots__ = ("checks", "files", "heads", "wrapping")

    def __init__(self, master: Secret, *, can_read: bool) -> None:
        self.heads = siv_of(master, "heads of blobs")
        self.checks = Secret(_derived(master, "checks of blobs"))
        self.files = Secret(_derived(master, "files"))
        self.wrapping = siv_of(master, "keys of packs") if can_read else None


class Keys:
    """The keys of a repository.

    Attributes:
        id: of the first master secret; public, and the same after a rotation.
        ids: the key of chunk ids.
        names: seals the names of files.
        description: the key that authenticates the repository file.
        generations: the oldest first; at least one.
    """

    __slots__ = ("description", "generations", "id", "ids", "names")

    def __init__(self, masters: Sequence[Secret], *, can_read: bool = True) -> None:
        first = masters[0]
        self.id = id_of_keys(first)
        self.ids = Secret(_derived(first, "ids of chunks"))
        self.names = siv_of(first, "names of files")
        self.description = Secret(_derived(first, "description"))
        self.generations = tuple(Generation(each, can_read=can_read) for each in masters)

    @property
    def newest(self) -> Generation:
        """The generation that everything new is sealed with."""
        return self.generations[-1]

    def are(self, other: "Keys") -> bool:
        """Return whether these are the same keys, of all generations."""
        own, others = ([each.files for each in keys.generations] for keys in (self, other))
        return self.id == other.id and own == others

    def __repr__(self) -> str:
        return f"<keys {self.id.hex()}: {SHOWN}>"

    def __reduce__(self) -> NoReturn:
        message = "keys are not copied"
        raise TypeError(message)


def id_of_keys(first: Secret) -> bytes:
    """Return the public id of the keys that follow from a first master secret."""
    return _derived(first, "id of the keys", KEYS_ID_BYTES)


def siv_of(secret: Secret, purpose: str) -> AESSIV:
    """Return AES-256-SIV with the key that follows from a secret for one purpose."""
    return AESSIV(_derived(secret, purpose, _SIV_BYTES))


def _derived(secret: Secret, purpose: str, length_bytes: int = SECRET_BYTES) -> bytes:
    return secret.derive(_PURPOSE + purpose, length_bytes)
