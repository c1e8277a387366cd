"""The keys of packs: how new ones are made, and how those in the heads of blobs are opened.

::

    unsealed   pack key      random, wrapped under the wrapping key       whoever has the keys opens
    sealed     run key 0     random, sealed for the recovery key's public half, in a file of its own
               run key 1     follows from run key 0, run key 2 from 1 ...
               pack key n    follows from run key n

What the head of a blob has of a pack key is 48 bytes in either case. In a sealed repository these
are the name of the run and the number of the key: they say nothing without the recovery key. As
soon as a pack key is made, the run key that it follows from is forgotten: so the memory of a
running writer opens the pack that it fills, and none before; after the run it opens nothing.
"""

import secrets
import struct
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple, Protocol

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from msgspec import Struct

from virtbackup_async.errors import SEALED_HINT, ConfigError, CorruptError
from virtbackup_async.repository.keys import recovery
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import SECRET_BYTES, SHOWN, Secret

WRAPPED_BYTES: Final = 48
RUN_BYTES: Final = 16
MAX_STEPS: Final = 4096
_MAGIC: Final = b"vbk-runk"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(f"<8sH6x{RUN_BYTES}s")
_WRAPPED: Final = struct.Struct(f"<{RUN_BYTES}sI28x")
_PURPOSE: Final = "virtbackup-async 2026-11 run key: "
_KEPT_RUNS: Final = 64


class NewPackKey(NamedTuple):
    """A pack key, and what the heads of blobs have of it."""

    secret: bytes
    wrapped: bytes


class PackKeys(Protocol):
    """Makes and opens the keys of packs. Any thread may call it.

    Attributes:
        method: how they are wrapped; the heads of blobs have it.
        can_read: whether ``open`` works.
        public: the public half of the recovery key that they are sealed for; None if they are not.
    """

    @property
    def method(self) -> int: ...

    @property
    def can_read(self) -> bool: ...

    @property
    def public(self) -> bytes | None: ...

    def new(self) -> NewPackKey: ...

    def open(self, wrapped: bytes, generation: int) -> bytes | None:
        """Return a pack key; None if ``wrapped`` is none. Blocks.

        Raises:
            ConfigError: the keys that are here cannot open it.
            CorruptError: what it takes is damaged or missing.
        """

    def check(self, wrapped: bytes) -> None:
        """Check that the pack key could be opened with the right key. Blocks.

        Raises:
            CorruptError: what it takes is damaged or missing.
        """

    def run_of(self, wrapped: bytes) -> bytes:
        """Return the run whose key is needed beside the blob, in a sealed repository."""

    def run_key(self, run: bytes) -> bytes:
        """Return the sealed key of a run, as its file has it; raises as ``check``. Blocks."""

    def learn_from(self, other: "PackKeys") -> None:
        """Look for run keys there as well."""

    def forget(self) -> None:
        """Forget what new pack keys are made of: later ones belong to another run."""


class WrappedPackKeys:
    """The keys of packs that whoever has the keys of the repository can open."""

    method: Final = 1
    public: Final = None

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.can_read = keys.newest.wrapping is not None

    def new(self) -> NewPackKey:
        wrapping = self._keys.newest.wrapping
        if wrapping is None:
            raise ConfigError("the keys that are here cannot seal chunks")
        secret = secrets.token_bytes(SECRET_BYTES)
        return NewPackKey(secret, wrapping.encrypt(secret, [b"pack key"]))

    def open(self, wrapped: bytes, generation: int) -> bytes | None:
        wrapping = self._keys.generations[generation].wrapping
        if wrapping is None:
            raise ConfigError("the keys that are here cannot open chunks")
        try:
            return wrapping.decrypt(wrapped, [b"pack key"])
        except InvalidTag:
            return None

    def check(self, wrapped: bytes) -> None:
        """Nothing else is needed."""

    def run_of(self, wrapped: bytes) -> bytes:
        raise _missing(wrapped[:RUN_BYTES])

    def run_key(self, run: bytes) -> bytes:
        raise _missing(run)

    def learn_from(self, other: PackKeys) -> None:
        """Nothing else is needed."""

    def forget(self) -> None:
        """Each pack key is random, so there is nothing."""


class _Run:
    """The run that new pack keys belong to."""

    def __init__(self, secret: bytes) -> None:
        self.name = secrets.token_bytes(RUN_BYTES)
        self._secret = secret
        self._steps = 0

    @property
    def is_over(self) -> bool:
        return self._steps == MAX_STEPS

    def next(self) -> NewPackKey:
        made = NewPackKey(_pack_key(self._secret), _WRAPPED.pack(self.name, self._steps))
        self._secret = _next_run_key(self._secret)
        self._steps += 1
        return made


class _OpenRun(Struct):
    """A run whose key was opened: its first key, and the last one that was asked for."""

    first: bytes
    step: int
    secret: bytes

    def key_of(self, step: int) -> bytes:
        if step < self.step:
            self.step, self.secret = 0, self.first
        while self.step < step:
            self.step, self.secret = self.step + 1, _next_run_key(self.secret)
        return _pack_key(self.secret)


class SealedPackKeys:
    """The keys of packs that only the recovery key opens.

    Attributes:
        sources: return the good file of a run's key; None if there is none. They block.
    """

    method: Final = 2

    def __init__(
        self,
        keys_id: bytes,
        public: bytes,
        paper: Secret | None,
        find: Callable[[bytes], bytes | None],
    ) -> None:
        """Prepare.

        Args:
            keys_id: the id of the repository's keys.
            public: the public half of the recovery key.
            paper: the recovery key; None where chunks are only written.
            find: returns the good file of a run's key; None if there is none. Blocks.

        Raises:
            ConfigError: it is another recovery key.
        """
        if paper is not None and recovery.public_half(paper) != public:
            raise ConfigError("the repository is sealed for another recovery key")
        self.public = public
        self.can_read = paper is not None
        self._keys_id = keys_id
        self._paper = paper
        self.sources = [find]
        self._turn = Lock()
        self._run: _Run | None = None
        self._sealed: dict[bytes, bytes] = {}
        self._opened: OrderedDict[bytes, _OpenRun] = OrderedDict()

    def __repr__(self) -> str:
        return f"<pack keys: {SHOWN}>"

    def new(self) -> NewPackKey:
        with self._turn:
            if self._run is None or self._run.is_over:
                self._run = self._begin()
            return self._run.next()

    def open(self, wrapped: bytes, generation: int) -> bytes | None:  # noqa: ARG002 -- of others
        if self._paper is None:
            raise ConfigError("there is no recovery key, so no disk opens", hint=SEALED_HINT)
        name, step = _WRAPPED.unpack(wrapped)
        if step >= MAX_STEPS:
            return None
        with self._turn:
            run = self._opened.get(name)
            if run is not None:
                self._opened.move_to_end(name)
                return run.key_of(step)
        secret = self._opened_secret(name, self._paper)
        with self._turn:
            run = self._opened.setdefault(name, _OpenRun(secret, 0, secret))
            if len(self._opened) > _KEPT_RUNS:
                self._opened.popitem(last=False)
            return run.key_of(step)

    def check(self, wrapped: bytes) -> None:
        name, step = _WRAPPED.unpack(wrapped)
        if step >= MAX_STEPS:
            raise CorruptError("the number of a pack key is too high")
        self.run_key(name)

    def run_of(self, wrapped: bytes) -> bytes:
        return wrapped[:RUN_BYTES]

    def run_key(self, run: bytes) -> bytes:
        known = self._sealed.get(run)
        if known is not None:
            return known
        for find in tuple(self.sources):
            found = find(run)
            if found is not None:
                self._sealed[run] = found
                return found
        raise _missing(run)

    def learn_from(self, other: PackKeys) -> None:
        if isinstance(other, SealedPackKeys) and other is not self:
            self.sources += [find for find in other.sources if find not in self.sources]

    def forget(self) -> None:
        with self._turn:
            self._run = None

    def _begin(self) -> _Run:
        secret = secrets.token_bytes(SECRET_BYTES)
        run = _Run(secret)
        sealed = recovery.seal_for(self.public, secret, self._bound(run.name))
        self._sealed[run.name] = _HEAD.pack(_MAGIC, _VERSION, run.name) + sealed
        return run

    def _opened_secret(self, run: bytes, paper: Secret) -> bytes:
        sealed = self.run_key(run)[_HEAD.size :]
        secret = recovery.open_sealed(paper, sealed, self._bound(run))
        if secret is None or len(secret) != SECRET_BYTES:
            raise CorruptError(f"run key {run.hex()} does not open with the recovery key")
        return secret

    def _bound(self, run: bytes) -> bytes:
        return b"virtbackup run key\0" + self._keys_id + run


def is_run_key(data: bytes, run: bytes) -> bool:
    """Return whether the content of a file is the sealed key of a run."""
    return len(data) == _HEAD.size + recovery.sealed_bytes(SECRET_BYTES) and data[
        : _HEAD.size
    ] == _HEAD.pack(_MAGIC, _VERSION, run)


def _pack_key(run_key: bytes) -> bytes:
    return blake3(run_key, derive_key_context=_PURPOSE + "pack").digest()


def _next_run_key(run_key: bytes) -> bytes:
    return blake3(run_key, derive_key_context=_PURPOSE + "next").digest()


def _missing(run: bytes) -> CorruptError:
    return CorruptError(f"run key {run.hex()} is missing or damaged: its chunks open no more")
