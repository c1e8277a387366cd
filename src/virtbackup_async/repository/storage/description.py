"""What the repository file says: the id, and whether and how the repository is encrypted.

Of an encrypted repository it is authenticated with a key of the repository. Pure.
"""

import hmac
import re
from typing import Any, Final

import msgspec
from blake3 import blake3
from msgspec import Struct

from virtbackup_async.errors import REPAIR_HINT, CorruptError, NewerVersionError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.format.chunks import CHUNK_BYTES

PLAIN_VERSION: Final = 1
ENCRYPTED_VERSION: Final = 2
SEALED_VERSION: Final = 3
ID_BYTES: Final = 16
_CIPHER: Final = "aes-256-gcm"
_DIGESTS: Final = {
    PLAIN_VERSION: "blake3",
    ENCRYPTED_VERSION: "blake3-keyed",
    SEALED_VERSION: "blake3-keyed",
}
_PUBLIC: Final = re.compile("(?:[0-9a-f]{2})+")


class Description(Struct, frozen=True):
    """A repository, as its file describes it.

    Attributes:
        id: 16 bytes.
        keys: the id of its keys, 16 bytes; None if it is not encrypted.
        generations: how many master secrets there are at least; 0 if it is not encrypted.
        facts: all that the file says.
        public: of a sealed repository, the public half of the recovery key that opens its chunks;
            else None.
    """

    id: bytes
    keys: bytes | None
    generations: int
    facts: dict[str, Any]
    public: bytes | None = None

    def is_authentic(self, key: bytes) -> bool:
        """Return whether somebody with the keys wrote the description."""
        return hmac.compare_digest(str(self.facts.get("mac")), _mac(self.facts, key))


def encode_plain(id_: bytes) -> bytes:
    """Return the file of a repository without keys."""
    return sealed_json.dumps(_facts(id_, PLAIN_VERSION, None))


def encode_encrypted(
    id_: bytes, keys: bytes, generations: int, key: bytes, public: bytes | None = None
) -> bytes:
    """Return the file of an encrypted repository.

    Args:
        id_: of the repository.
        keys: the id of its keys.
        generations: how many master secrets there are.
        key: the one that authenticates the description.
        public: of a sealed one, the public half of the recovery key that opens its chunks.
    """
    encryption = {"cipher": _CIPHER, "keys": keys.hex(), "generations": generations}
    version = ENCRYPTED_VERSION
    if public is not None:
        encryption["public"] = public.hex()
        version = SEALED_VERSION
    facts = _facts(id_, version, encryption)
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
    id_ = _id_in(facts, "id", where)
    encryption = facts["encryption"]
    if encryption is None:
        return Description(id_, None, 0, facts)
    keys = _id_in(encryption, "keys", where)
    public = bytes.fromhex(encryption["public"]) if facts["version"] == SEALED_VERSION else None
    return Description(id_, keys, encryption["generations"], facts, public)


def _facts(id_: bytes, version: int, encryption: dict[str, Any] | None) -> dict[str, Any]:
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
    is_known = encryption is None if version == PLAIN_VERSION else _is_known(encryption, version)
    if unknown or not is_known:
        raise NewerVersionError(f"repository cannot be read: {where}: {_in_words(unknown)}")


def _in_words(unknown: dict[str, object]) -> str:
    words = [f"its {key} is {value!r:.40}, which is not known" for key, value in unknown.items()]
    return ", ".join(words).replace("_bytes", " size") or "its encryption is not known"


def _is_known(encryption: object, version: int) -> bool:
    match encryption:
        case {"cipher": str(cipher), "generations": int(generations), "public": str(public)}:
            is_of_version = version == SEALED_VERSION and _PUBLIC.fullmatch(public) is not None
        case {"cipher": str(cipher), "generations": int(generations)}:
            is_of_version = version == ENCRYPTED_VERSION
        case _:
            return False
    return cipher == _CIPHER and generations > 0 and is_of_version


def _id_in(facts: dict[str, Any], key: str, where: str) -> bytes:
    try:
        id_ = bytes.fromhex(str(facts.get(key)))
    except ValueError:
        id_ = b""
    if len(id_) != ID_BYTES:
        raise CorruptError(f"damaged: {where}: no id")
    return id_


def _mac(facts: dict[str, Any], key: bytes) -> str:
    rest = {name: value for name, value in facts.items() if name != "mac"}
    return blake3(msgspec.json.encode(rest), key=key).hexdigest()
