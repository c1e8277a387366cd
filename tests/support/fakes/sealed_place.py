"""A sealed target: a host that writes, and a recovery key that is somewhere else."""

import gc
from contextlib import contextmanager
from itertools import chain
from types import CoroutineType, FrameType, FunctionType, GeneratorType, ModuleType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from msgspec.structs import replace

from fakes.encrypted_place import EncryptedPlace
from virtbackup_async.repository import drop_key, hold_key, new_paper
from virtbackup_async.repository.format.pack_format import HEAD_BYTES as PACK_HEAD_BYTES
from virtbackup_async.repository.keys import keyed_sealing
from virtbackup_async.repository.keys.slots import SlotKind
from virtbackup_async.repository.storage.key import Key


class SealedPlace(EncryptedPlace):
    """A sealed target, and the recovery key, which the host does not have."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        public = directory / "recovery.pub"
        self.paper = Key(SlotKind.RECOVERY, new_paper(public))
        super().__init__(directory, sealed_for=public)

    @contextmanager
    def recovered(self):
        """Yield the location as it is opened with the recovery key."""
        name = hold_key(self.paper)
        try:
            yield replace(self.location, key_file=None, held_key=name)
        finally:
            drop_key(name)

    async def restored(self, domain, name, location=None):
        if location is not None:
            return await super().restored(domain, name, location)
        with self.recovered() as recovered:
            return await super().restored(domain, name, recovered)

    def packs(self):
        return [path.read_bytes() for path in self.files(".virtbackup-repository/packs")]


# What runs at the moment is the test itself.
_ELSEWHERE = (type, ModuleType, FrameType, CoroutineType, GeneratorType)


def reachable(start):
    """All objects that an object holds, directly or not; of modules and classes nothing.

    A function leads to the globals of its module, and so to whatever else the process does, this
    test included: only what a function was made with is followed.
    """
    found, coming = {}, [start]
    while coming:
        value = coming.pop()
        if id(value) in found or isinstance(value, _ELSEWHERE):
            continue
        found[id(value)] = value
        if isinstance(value, FunctionType):
            coming += [value.__closure__, value.__defaults__, value.__kwdefaults__]
            continue
        coming += gc.get_referents(value)
        # An object with slots that the collector does not follow into.
        for slot in getattr(type(value), "__slots__", ()):
            if hasattr(value, slot):
                coming.append(getattr(value, slot))
    return list(found.values())


def opening(materials, pack, heads):
    """Return what of some secrets opens the first payload of a pack, in whatever way.

    Args:
        materials: bytes and ciphers.
        pack: the whole file of a pack.
        heads: opens the head of a blob, which the host can.
    """
    start, end = PACK_HEAD_BYTES, PACK_HEAD_BYTES + keyed_sealing.HEAD_BYTES
    head = heads.decrypt(pack[start:end], [b"blob head"])
    method, _, _, length, stored, number, id_, wrapped, _ = keyed_sealing._HEAD.unpack(head)
    payload = pack[end : end + -(-stored // 16) * 16 + 16]
    nonce = number.to_bytes(12, "little")
    bounds = [
        keyed_sealing._BOUND.pack(b"blob", material, method, length, stored, id_)
        for material in materials
        if isinstance(material, bytes) and len(material) == 16
    ]
    assert bounds, "the id of the keys is missing"
    return [
        cipher
        for cipher in chain.from_iterable(ciphers_of(each, wrapped) for each in materials)
        if any(decrypted(cipher.decrypt, nonce, payload, bound) for bound in bounds)
    ]


def ciphers_of(material, wrapped):
    """What could open a payload, by a secret."""
    if isinstance(material, AESGCM):
        yield material
    if isinstance(material, bytes | bytearray) and len(material) == 32:
        yield AESGCM(bytes(material))
    if isinstance(material, bytes | bytearray) and len(material) == 64:
        material = AESSIV(bytes(material))
    if isinstance(material, AESSIV) and (
        key := decrypted(material.decrypt, wrapped, [b"pack key"])
    ):
        yield AESGCM(key)


def decrypted(decrypt, *arguments):
    """What is opened; None if it does not open."""
    try:
        return decrypt(*arguments)
    except (InvalidTag, ValueError):
        return None
