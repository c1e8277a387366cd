"""Packs and maps, built from docs/reference/repository-format.md without the code under test."""

import struct
from collections.abc import Iterator
from pathlib import Path

import zstandard
from blake3 import blake3

_PACK_HEAD = _BLOB_HEAD = 64
_MAP_HEAD, _MAP_TAIL = 48, 32
_ENTRY = struct.Struct("<QQ32s")


def held_ids(target: Path) -> set[bytes]:
    """The ids of all chunks that can be read out of the packs of a target."""
    packs = (target / ".virtbackup-repository" / "packs").glob("??/*.pack")
    return {id_ for pack in packs if pack.is_file() for id_ in _ids_in(pack.read_bytes())}


def needed_ids(path: Path) -> set[bytes]:
    """The ids of the chunks that a map names."""
    entries = path.read_bytes()[_MAP_HEAD:-_MAP_TAIL]
    return {id_ for _, _, id_ in _ENTRY.iter_unpack(entries)}


def _ids_in(pack: bytes) -> Iterator[bytes]:
    at = _PACK_HEAD
    while len(pack) >= at + _BLOB_HEAD and pack[at : at + 4] == b"blob":
        method = pack[at + 4]
        _, stored = struct.unpack_from("<II", pack, at + 8)
        id_ = pack[at + 16 : at + 48]
        data = pack[at + _BLOB_HEAD : at + _BLOB_HEAD + stored]
        if len(data) == stored:
            chunk = zstandard.ZstdDecompressor().decompress(data) if method else data
            if blake3(chunk).digest() == id_:
                yield id_
        at += _BLOB_HEAD + stored
