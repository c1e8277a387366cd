"""What the repository file says: the id, and whether and how the repository is encrypted.

Of an encrypted repository it is authenticated with a key of the repository. Pure.
"""

import hmac
from typing import Any, Final

import msgspec
from blake3 import blake3
from msgspec import Struct

from virtbackup_async.errors import REPAIR_HINT, CorruptError, NewerVersionError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.format.chunks import CHUNK_BYTES

PLAIN_VERSION: Final = 1
SEALED_VERSION: Final = 2
ID_BYTES: Final = 16
_CIPHER: Final = "aes-256-gcm"
_DIGESTS: Final = {PLAIN_VERSION: "blake3", SEALED_VERSION: "blake3-keyed"}


class Description(Struct, frozen=True):
    """A repository, as its file describes it.

    Attributes:
        id: 16 bytes.
        keys: the id of its keys, 16 bytes; None if it is not encrypted.
        facts: all that the file says.
    """

    id: bytes
    keys: bytes | None
    facts: dict[str, Any]

    def is_authentic(self, key: bytes) -> bool:
        """Return whether somebody with the keys wrote the description."""
        return hmac.compare_digest(str(self.facts.get("mac")), _mac(self.facts, key))


def encode_plain(id_: bytes) -> bytes:
    """Return the file of a repository without keys."""
    return sealed_json.dumps(_facts(id_, PLAIN_VERSION, None))


def encode_sealed(id_: bytes, keys: bytes, key: bytes) -> bytes:
    """Return the file of an encrypted repository.

    Args:
        id_: of the repository.
        keys: the id of its keys.
        key: the one that authenticates the description.
    """
    facts = _facts(id_, SEALED_VERSION, {"cipher": _CIPHER, "keys": keys.hex()})
    return sealed_json.dumps({**facts, "mac": _mac(facts, key)})


def decode(data: bytes, where: str) -> Description:
    """Return what a repository file says; ``where`` is for messages.

    Raises:
        NewerVersionError: a newer program made the repository.
        CorruptError: it is damaged.
    """
    try:
        facts = sealed_json.loads(data, where)
    except CorruptError as error:
        raise error.reworded(error.message, REPAIR_HINT) from error
    _check(facts, where)
    encryption = facts.get("encryption")
    keys = None if encryption is None else _id_in(encryption, "keys")
    id_ = _id_in(facts, "id")
    if len(id_) != ID_BYTES or (keys is not None and len(keys) != ID_BYTES):
        raise CorruptError(f"damaged: {where}: no id")
    return Description(id_, keys, facts)


def _facts(id_: bytes, version: int, encryption: dict[str, str] | None) -> dict[str, Any]:
    return {
        "format": "virtbackup repository",
        "version": version,
        "id": id_.hex(),
        "chunk_bytes": CHUNK_BYTES,
        "digest": _DIGESTS[version],
        "encryption": encryption,
    }


def _check(facts: dict[str, Any], where: str) -> None:
    version = facts.get("version")
    version = version if version in _DIGESTS else PLAIN_VERSION
    expected = {"version": version, "chunk_bytes": CHUNK_BYTES, "digest": _DIGESTS[version]}
    unknown = {key: facts.get(key) for key in expected if facts.get(key) != expected[key]}
    encryption = facts.get("encryption")
    is_known = (
        encryption is None
        if version == PLAIN_VERSION
        else isinstance(encryption, dict) and encryption.get("cipher") == _CIPHER
    )
    if unknown or not is_known:
        raise NewerVersionError(f"repository cannot be read: {where}: {_in_words(unknown)}")


def _in_words(unknown: dict[str, object]) -> str:
    words = [f"its {key} is {value!r:.40}, which is not known" for key, value in unknown.items()]
    return ", ".join(words).replace("_bytes", " size") or "its encryption is not known"


def _id_in(facts: dict[str, Any], key: str) -> bytes:
    try:
        return bytes.fromhex(str(facts.get(key)))
    except ValueError:
        return b""


def _mac(facts: dict[str, Any], key: bytes) -> str:
    rest = {name: value for name, value in facts.items() if name != "mac"}
    return blake3(msgspec.json.encode(rest), key=key).hexdigest()
