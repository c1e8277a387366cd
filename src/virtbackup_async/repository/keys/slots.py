"""Key slots: files that hold the master secrets, each sealed for one holder.

::

    passphrase   sealed with a key that Argon2id makes of the passphrase
    key-file     sealed with a key that follows from the secret in the key file
    recovery     sealed for the public half of a recovery key                     recovery.py

A slot is bound to its repository, its kind and its label: it opens nowhere else. What it says of
the cost of a passphrase comes from the store, so it is bounded before it is used.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Struct, field
from msgspec.structs import replace

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.keys import recovery
from virtbackup_async.repository.keys.keyring import (
    KEYS_ID_BYTES,
    MAX_GENERATIONS,
    id_of_keys,
    siv_of,
)
from virtbackup_async.repository.keys.secret import SECRET_BYTES, Secret

FORMAT: Final = "virtbackup key slot"
VERSION: Final = 1
MAX_SLOT_BYTES: Final = 64 * 1024
MAX_LABEL: Final = 100
SALT_BYTES: Final = 32
_SIV_BYTES: Final = 64
_ID_BYTES: Final = 16
_LEAST_MEMORY_KIB: Final = 8


class SlotKind(StrEnum):
    """Who can open a slot."""

    PASSPHRASE = "passphrase"  # noqa: S105 -- the word
    KEY_FILE = "key-file"
    RECOVERY = "recovery"


class Cost(Struct, frozen=True):
    """What Argon2id costs whoever tries a passphrase: 0.5 s and 256 MiB on a small machine."""

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 256 * 1024


MAX_COST: Final = Cost(iterations=16, lanes=64, memory_kib=2 * 1024 * 1024)


class Slot(Struct, frozen=True):
    """A slot, as its file describes it.

    Attributes:
        repository: the id of the repository, 16 bytes.
        keys: the id of the keys in it, 16 bytes.
        kind: who can open it.
        label: what its maker called it.
        created: when, as a date with the time in UTC.
        sealed: the master secrets.
        salt: of a passphrase's slot.
        cost: of a passphrase's slot.
        public: the public half of a recovery key.
    """

    repository: bytes
    keys: bytes
    kind: SlotKind
    label: str
    created: str
    sealed: bytes = b""
    salt: bytes = b""
    cost: Cost = field(default_factory=Cost)
    public: bytes = b""

    @property
    def bound(self) -> bytes:
        """What the sealed secrets are bound to."""
        texts = (FORMAT, str(VERSION), self.kind, self.label, self.created)
        return b"\0".join([*(text.encode() for text in texts), self.repository + self.keys])


def encode(slot: Slot) -> bytes:
    """Return the content of a slot's file."""
    details: dict[str, object] = {}
    if slot.kind is SlotKind.PASSPHRASE:
        details = {
            "argon2id": {
                "salt": slot.salt.hex(),
                "iterations": slot.cost.iterations,
                "lanes": slot.cost.lanes,
                "memory_kib": slot.cost.memory_kib,
            }
        }
    if slot.kind is SlotKind.RECOVERY:
        details = {"algorithm": recovery.ALGORITHM, "public": slot.public.hex()}
    value = {
        "format": FORMAT,
        "version": VERSION,
        "repository": slot.repository.hex(),
        "keys": slot.keys.hex(),
        "kind": slot.kind.value,
        "label": slot.label,
        "created": slot.created,
        **details,
        "sealed": slot.sealed.hex(),
    }
    return sealed_json.dumps(value)


def decode(data: bytes, where: str) -> Slot:
    """Return a slot from the content of its file; ``where`` is for messages.

    Raises:
        NewerVersionError: a newer program wrote it.
        CorruptError: it is damaged, or its passphrase would cost too much.
    """
    value = sealed_json.loads(data, where)
    try:
        _check_version(value, where)
        slot = Slot(
            repository=_bytes_in(value, "repository", _ID_BYTES),
            keys=_bytes_in(value, "keys", KEYS_ID_BYTES),
            kind=SlotKind(value["kind"]),
            label=_text_in(value, "label"),
            created=_text_in(value, "created"),
            sealed=bytes.fromhex(value["sealed"]),
        )
        return _with_details(slot, value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"cannot be understood: {where}") from error


def _check_version(value: Mapping[str, Any], where: str) -> None:
    algorithm = value.get("algorithm", recovery.ALGORITHM)
    if value.get("format") != FORMAT:
        raise CorruptError(f"cannot be understood: {where}")
    if value.get("version") != VERSION or algorithm != recovery.ALGORITHM:
        raise NewerVersionError(f"key slot cannot be read: {where}: its version is not known")


def _with_details(slot: Slot, value: Mapping[str, Any]) -> Slot:
    if slot.kind is SlotKind.PASSPHRASE:
        details = value["argon2id"]
        salt = _bytes_in(details, "salt", SALT_BYTES)
        return replace(slot, salt=salt, cost=_cost_in(details))
    if slot.kind is SlotKind.RECOVERY:
        return replace(slot, public=_bytes_in(value, "public", recovery.PUBLIC_BYTES))
    return slot


def _cost_in(details: Mapping[str, Any]) -> Cost:
    values = {}
    for name in Cost.__struct_fields__:
        number = details[name]
        if type(number) is not int or not 1 <= number <= getattr(MAX_COST, name):
            raise ValueError(name)
        values[name] = number
    cost = Cost(**values)
    if cost.memory_kib < _LEAST_MEMORY_KIB * cost.lanes:
        raise ValueError("memory_kib")
    return cost


def _bytes_in(value: Mapping[str, Any], name: str, length_bytes: int) -> bytes:
    data = bytes.fromhex(value[name])
    if len(data) != length_bytes:
        raise ValueError(name)
    return data


def _text_in(value: Mapping[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str) or len(text) > MAX_LABEL:
        raise ValueError(name)
    return text


def with_passphrase(slot: Slot, masters: Sequence[Secret], passphrase: Secret, salt: bytes) -> Slot:
    """Return a slot with master secrets that a passphrase opens. Blocks for a while.

    Args:
        slot: the rest of the slot, with the cost.
        masters: the master secrets, oldest first.
        passphrase: UTF-8.
        salt: 32 random bytes.
    """
    return _sealed(slot, masters, _siv_of_passphrase(passphrase, salt, slot.cost), salt=salt)


def with_key_file(slot: Slot, masters: Sequence[Secret], secret: Secret) -> Slot:
    """Return a slot with master secrets that the secret of a key file opens."""
    return _sealed(slot, masters, siv_of(secret, "key file"))


def with_recovery(slot: Slot, masters: Sequence[Secret], public: bytes) -> Slot:
    """Return a slot with master secrets that a recovery key opens, sealed for its public half."""
    sealed = recovery.seal_for(public, _joined(masters), slot.bound)
    return replace(slot, sealed=sealed, public=public)


def open_with_passphrase(slot: Slot, passphrase: Secret) -> list[Secret] | None:
    """Return the master secrets; None if it is another passphrase. Blocks for a while."""
    return _opened(slot, _siv_of_passphrase(passphrase, slot.salt, slot.cost))


def open_with_key_file(slot: Slot, secret: Secret) -> list[Secret] | None:
    """Return the master secrets; None if the slot is for another key file."""
    return _opened(slot, siv_of(secret, "key file"))


def open_with_recovery(slot: Slot, paper: Secret) -> list[Secret] | None:
    """Return the master secrets; None if the slot is for another recovery key."""
    return _split(slot, recovery.open_sealed(paper, slot.sealed, slot.bound))


def _sealed(slot: Slot, masters: Sequence[Secret], siv: AESSIV, salt: bytes = b"") -> Slot:
    return replace(slot, sealed=siv.encrypt(_joined(masters), [slot.bound]), salt=salt)


def _opened(slot: Slot, siv: AESSIV) -> list[Secret] | None:
    try:
        return _split(slot, siv.decrypt(slot.sealed, [slot.bound]))
    except (InvalidTag, ValueError):
        return None


def _joined(masters: Sequence[Secret]) -> bytes:
    return b"".join(master.reveal() for master in masters)


def _split(slot: Slot, data: bytes | None) -> list[Secret] | None:
    """Return the master secrets in opened data, if they are those of the slot's keys."""
    if not data or len(data) % SECRET_BYTES or len(data) > MAX_GENERATIONS * SECRET_BYTES:
        return None
    found = [Secret(data[at : at + SECRET_BYTES]) for at in range(0, len(data), SECRET_BYTES)]
    return found if id_of_keys(found[0]) == slot.keys else None


def _siv_of_passphrase(passphrase: Secret, salt: bytes, cost: Cost) -> AESSIV:
    kdf = Argon2id(
        salt=salt,
        length=_SIV_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return AESSIV(kdf.derive(passphrase.reveal()))
