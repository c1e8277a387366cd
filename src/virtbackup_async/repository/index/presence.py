"""Checks that the packs that the index names exist and are long enough.

::

    index     pack a up to byte 812     pack b up to 405     pack c up to 99
    packs/    a, 812 bytes              b, 300 bytes         -
    misfits                             b: cut off           c: missing

Called when code that relies on the index opens it: the writer, for which chunks in misfits are
missing, and the prune, which removes nothing while there are any. Only names and lengths are read,
which costs one status for each pack; ``verify`` reads the content. Readers need no check: they find
out when they read.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from virtbackup_async.errors import REPAIR_HINT, CorruptError
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import Index
from virtbackup_async.repository.storage.layout import (
    Repository,
    pack_file,
    pack_sizes,
    token_of,
)
from virtbackup_async.repository.storage.run_keys import run_key_names, tokens_of

_SHOWN: Final = 3
_UNCLEAR: Final = -1


def misfits(repository: Repository, index: Index, pending: frozenset[bytes]) -> dict[bytes, str]:
    """Return the packs that do not fit the index, with the problem of each. Blocks.

    Args:
        repository: the repository of the packs.
        index: its index, open.
        pending: packs pending deletion, which are left out: a prune removes them before their
            records.

    Raises:
        StorageError: the packs cannot be listed.
    """
    ends = _ends(index, pending)
    if not ends:
        return {}
    sizes = pack_sizes(repository.storage, ends)
    found = _without_run_key(repository, ends)
    for pack, end in ends.items():
        if sizes.get(pack, -1) < end:
            problem = _look(repository, pack, end)
            if problem is not None:
                found[pack] = problem
    return found


def refuse_misfits(repository: Repository, index: Index, pending: frozenset[bytes]) -> None:
    """Check that index and packs fit together. Blocks.

    Raises:
        CorruptError: they do not: needed chunks might be in packs that seem to be unneeded.
        StorageError: the packs cannot be listed.
    """
    found = misfits(repository, index, pending)
    if found:
        raise CorruptError(in_words(found), hint=REPAIR_HINT)


def in_words(found: Mapping[bytes, str]) -> str:
    """Return the problems as one line."""
    shown = "; ".join(found[pack] for pack in sorted(found)[:_SHOWN])
    more = len(found) - _SHOWN
    return f"{shown}; and {more} more packs" if more > 0 else shown


def unknown_packs(
    index: Index, sizes: Mapping[bytes, int], shape: pack_format.PackShape
) -> frozenset[bytes]:
    """Return the packs that might have chunks which the index does not know. Blocks.

    Args:
        index: open.
        sizes: the lengths of packs in bytes, by their names; other packs are ignored.
        shape: of the packs.
    """
    known: dict[bytes, int] = {}
    for segment in index.segments:
        lengths = np.zeros(len(segment.packs), dtype=np.int64)
        for first, end in segment.parts():
            records = segment.read_records(first, end)
            lengths += np.bincount(records["pack"], records["length"], len(lengths)).astype("i8")
        of_packs = zip(segment.packs, lengths.tolist(), segment.ends.tolist(), strict=True)
        for pack, length_bytes, end in of_packs:
            # If a pack is in several segments, some records might be equal, and some wrong.
            is_clear = pack not in known and end <= sizes.get(pack, 0)
            known[pack] = length_bytes if is_clear else _UNCLEAR
    return frozenset(
        pack
        for pack, size_bytes in sizes.items()
        if known.get(pack, _UNCLEAR) != size_bytes - pack_format.HEAD_BYTES - shape.tail_bytes
    )


def _ends(index: Index, pending: frozenset[bytes]) -> dict[bytes, int]:
    """Return the end of the last chunk of each pack, according to the index."""
    ends: dict[bytes, int] = {}
    for segment in index.segments:
        for pack, end in zip(segment.packs, segment.ends.tolist(), strict=True):
            if pack not in pending and end > ends.get(pack, 0):
                ends[pack] = end
    return ends


def _without_run_key(repository: Repository, packs: Iterable[bytes]) -> dict[bytes, str]:
    """Return the packs that nobody can open any more, because the keys of their runs are gone."""
    if repository.sealing.run_keys is None:
        return {}
    tokens = tokens_of(run_key_names(repository.storage))
    return {
        pack: f"pack opens no more: {repository.where_is(pack)}: the key of its run is missing"
        for pack in packs
        if token_of(pack) not in tokens
    }


def _look(repository: Repository, pack: bytes, end: int) -> str | None:
    """Check a pack again: a server's cached status can be older than the index."""
    where = repository.where_is(pack)
    try:
        status = repository.storage.status(pack_file(pack))
    except FileNotFoundError:
        return f"pack is missing: {where}"
    if not status.is_file:
        return f"pack is damaged: {where}: it is not a regular file"
    if status.size_bytes < end:
        return f"pack is damaged: {where}: it is cut off at {size(status.size_bytes)}"
    return None
