"""The recovery key: what is sealed for its public half can be opened only by what is on paper.

::

    paper           32 random bytes, which this program prints and forgets
    private half    ML-KEM-768 and X25519, which follow from them
    public half     in the slot: later master secrets are sealed for it without the paper

HPKE (RFC 9180) with both: what is stored today stays closed even if one of the two is broken.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from virtbackup_async.repository.keys.secret import SECRET_BYTES, Secret

ALGORITHM: Final = "hpke-mlkem768-x25519-hkdf-sha256-aes256gcm"
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_MLKEM_CIPHERTEXT_BYTES: Final = 1088
_TAG_BYTES: Final = 16
PUBLIC_BYTES: Final = _MLKEM_PUBLIC_BYTES + SECRET_BYTES
_PURPOSE: Final = "virtbackup-async 2026-11 recovery key"
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def public_half(paper: Secret) -> bytes:
    """Return the public half of a recovery key."""
    mlkem, x25519 = _halves(paper)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def seal_for(public: bytes, data: bytes, info: bytes) -> bytes:
    """Seal data for the holder of a recovery key, bound to ``info``.

    Raises:
        ValueError: it is no public half.
    """
    mlkem, x25519 = public[:_MLKEM_PUBLIC_BYTES], public[_MLKEM_PUBLIC_BYTES:]
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
    )
    return _SUITE.encrypt(data, key, info)


def open_sealed(paper: Secret, sealed: bytes, info: bytes) -> bytes | None:
    """Return what was sealed for a recovery key; None if it was for another, or is changed."""
    try:
        return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(*_halves(paper)), info)
    except (InvalidTag, ValueError):
        return None


def sealed_bytes(length_bytes: int) -> int:
    """Return the length of what ``seal_for`` makes of so many bytes."""
    return _MLKEM_CIPHERTEXT_BYTES + SECRET_BYTES + length_bytes + _TAG_BYTES


def _halves(paper: Secret) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    seed = paper.derive(_PURPOSE, _MLKEM_SEED_BYTES + SECRET_BYTES)
    return (
        MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(seed[_MLKEM_SEED_BYTES:]),
    )
