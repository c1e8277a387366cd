"""A repository of 10 TB that takes 5 GB: index, maps and leases are real, packs are holes.

    benchmarks/huge_repository.py build TARGET [CHUNKS]     40 million of 256 KiB by default
    benchmarks/huge_repository.py STEP TARGET               one of those below; prints its seconds

Chunks are random ids. A pack is a file of the right length without data, so whatever reads chunks
cannot be measured here; what looks for them, counts and forgets them can. Each disk has a map for
each night: some of the first disk's differ in each hundredth chunk, the rest are links to one file.
``scripts/bench --only huge-repository`` runs all steps, each as a process, and has their memory.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from blake3 import blake3

from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.check.check import Check
from virtbackup_async.repository.check.lost_ranges import need_map
from virtbackup_async.repository.data.base_map import BaseMap
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.data.maps import open_map
from virtbackup_async.repository.format.chunks import ALL_PAGES, CHUNK_BYTES, ID_BYTES
from virtbackup_async.repository.format.index_format import RECORD_TYPE, Records
from virtbackup_async.repository.format.map_format import ENTRY, MapHead, encode_head
from virtbackup_async.repository.index.merging import merged
from virtbackup_async.repository.index.segment_writer import Content, nothing_follows, write_segment
from virtbackup_async.repository.index.segments import open_index, open_segment
from virtbackup_async.repository.prune.prune import prune_repository
from virtbackup_async.repository.storage.layout import (
    Repository,
    new_token,
    pack_file,
    pack_name,
    segment_file,
)
from virtbackup_async.repository.storage.repository_file import find_repository, make_repository
from virtbackup_async.repository.usage.exclusive import exclusive_usage
from virtbackup_async.repository.usage.totals import total_usage

CHUNKS = 40_000_000
DISKS = 25
NIGHTS = 30
_CHANGING, _DIFFERENT_NIGHTS = "disk-00", 5
_WHOLE = "whole.map"
_CHUNKS_A_PACK = 512
_BLOB_BYTES = 128 * 1024
_HEAD_BYTES = 64
_SINGLE_LOOKUPS = 100_000
_random = np.random.default_rng(10)


def build(target: Path, chunks: int = CHUNKS) -> None:
    """Make it, as if prunes had merged what the first nights left, and ten more nights came."""
    target.mkdir(parents=True)
    repository = make_repository(StorageLocation.of(target))
    each = chunks // DISKS
    made = [_add_disk(target, repository, f"disk-{disk:02}", each) for disk in range(DISKS)]
    _write_whole_map(target, repository)
    for group in (made[:20], made[20:24]):
        _merge(repository, group)
    for _ in range(10):
        _add_segment(target, repository, _random.bytes(ID_BYTES * (each // 100)))


def _add_disk(target: Path, repository: Repository, name: str, chunks: int) -> str:
    ids = _random.bytes(ID_BYTES * chunks)
    directory = target / name
    directory.mkdir()
    entries = np.empty(chunks, dtype=ENTRY)
    entries["number"], entries["pages"] = np.arange(chunks), ALL_PAGES
    entries["leaf"] = np.frombuffer(ids, dtype=f"V{ID_BYTES}")
    first = _map_path(directory, 0)
    _write_map(repository, first, entries)
    for night in range(1, NIGHTS):
        path = _map_path(directory, night)
        if name == _CHANGING and night < _DIFFERENT_NIGHTS:
            entries["leaf"][night::100] = np.roll(entries["leaf"][night::100], 1)
            _write_map(repository, path, entries)
        else:
            path.hardlink_to(first)
    return _add_segment(target, repository, ids)


def _write_whole_map(target: Path, repository: Repository) -> None:
    """Make a map of all disks one behind the other, where the prune does not look for maps."""
    paths = [_map_path(target / f"disk-{disk:02}", NIGHTS - 1) for disk in range(DISKS)]
    storage = repository.storage
    with ExitStack() as stack, (target / _WHOLE).open("wb") as file:
        maps = [stack.enter_context(closing(open_map(storage, _map_name(path)))) for path in paths]
        size_bytes = sum(chunk_map.head.size_bytes for chunk_map in maps)
        data, first = encode_head(MapHead(repository.id, size_bytes)), 0
        file.write(data)
        digest = blake3(data)
        for chunk_map in maps:
            for block in chunk_map.blocks():
                entries = block.copy()
                entries["number"] += np.uint64(first)
                data = entries.tobytes()
                file.write(data)
                digest.update(data)
            first += chunk_map.head.size_bytes // CHUNK_BYTES
        file.write(digest.digest())


def _map_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _map_path(directory: Path, night: int) -> Path:
    return directory / f"2026{night // 28 + 1:02}{night % 28 + 1:02}-030000_3_{directory.name}.map"


def _write_map(repository: Repository, path: Path, entries: np.ndarray) -> None:
    data = encode_head(MapHead(repository.id, len(entries) * CHUNK_BYTES)) + entries.tobytes()
    path.write_bytes(data + blake3(data).digest())


def _add_segment(target: Path, repository: Repository, ids: bytes) -> str:
    """Put chunks into packs and the index, as a backup does."""
    count, token = len(ids) // ID_BYTES, new_token()
    records = np.empty(count, dtype=RECORD_TYPE)
    records["id"] = np.frombuffer(ids, dtype=">u8").reshape(-1, ID_BYTES // 8)
    records["pack"] = np.arange(count) // _CHUNKS_A_PACK
    records["offset"] = _HEAD_BYTES + np.arange(count) % _CHUNKS_A_PACK * _BLOB_BYTES
    records["length"] = _BLOB_BYTES
    packs = [pack_name(token, number) for number in range(-(-count // _CHUNKS_A_PACK))]
    for pack in packs:
        path = target / pack_file(pack)
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(_HEAD_BYTES + _CHUNKS_A_PACK * _BLOB_BYTES)
    name = segment_file(token, 0)
    write_segment(repository, name, Content(packs, _in_order(records), count), nothing_follows)
    return name


def _in_order(records: Records) -> Iterator[Records]:
    order = np.argsort(records["id"][:, 0].astype(np.uint64))
    for first in range(0, len(order), 1 << 18):
        yield records[order[first : first + (1 << 18)]]


def _merge(repository: Repository, names: list[str]) -> None:
    segments = [open_segment(repository, name) for name in names]
    name = segment_file(new_token(), 0)
    write_segment(repository, name, merged(segments), nothing_follows)
    for segment in segments:
        segment.close()
        repository.storage.remove(segment.name)


def open_it(_: Path, repository: Repository) -> str:
    """Open and check the whole index."""
    with closing(open_index(repository)) as index:
        return f"{sum(segment.shape.records for segment in index.segments)} chunks"


def look_up(_: Path, repository: Repository) -> str:
    """Look single chunks up, as the first backup of a disk does."""
    with closing(open_index(repository)) as index:
        ids = islice(_ids(repository, list_maps(repository.storage)[0].name), _SINGLE_LOOKUPS)
        started_s = time.monotonic()
        found = sum(index.find(id_) is not None for id_ in ids)
        each_us = (time.monotonic() - started_s) / found * 1e6
        return f"{found} found, {each_us:.1f} microseconds each, {len(index.segments)} segments"


def _ids(repository: Repository, name: str) -> Iterator[bytes]:
    with closing(open_map(repository.storage, name)) as chunk_map:
        for entry in chunk_map.entries():
            yield entry.leaf


def plan(_: Path, repository: Repository) -> str:
    """Find what is to be read of a disk of 10 TB of which nothing has changed."""
    with (
        closing(ChunkWriters().open(repository, 0)) as writer,
        closing(open_map(repository.storage, _WHOLE)) as chunk_map,
    ):
        parts = BaseMap(chunk_map).choose([], [], writer.are_missing)
        return f"{sum(part.length for part in parts)} of {chunk_map.head.size_bytes} bytes"


def check(target: Path, repository: Repository) -> str:
    """Do all that ``verify`` does of all disks' last backups, but read what the packs hold."""
    with closing(open_index(repository)) as index:
        checking = Check(repository, index, frozenset())
        for directory in sorted(target.glob("disk-*")):
            need_map(
                repository, _map_name(_map_path(directory, NIGHTS - 1)), checking, lambda: None
            )
        checked_bytes = checking.look_at_packs(lambda: None)
        runs = sum(1 for _ in checking.runs(lambda: None))
        return f"{checking.count_needed()} chunks, {checked_bytes} bytes, {runs} runs"


def write(_: Path, repository: Repository) -> str:
    """Store a chunk: what a backup that finds one new chunk pays for the rest."""
    with closing(ChunkWriters().open(repository, 0)) as writer:
        stored = writer.add({bytes(ID_BYTES): memoryview(b"new")})
        writer.publish()
        return f"{stored} bytes stored"


def clean(_: Path, repository: Repository) -> str:
    """Prune what is needed, all of it."""
    return str(prune_repository(repository, partial(list_maps, repository.storage), lambda: None))


def clean_disk(target: Path, repository: Repository) -> str:
    """Prune when the last disk's backups have been removed: the whole index is written anew."""
    for path in (target / f"disk-{DISKS - 1:02}").iterdir():
        path.unlink()
    return str(prune_repository(repository, partial(list_maps, repository.storage), lambda: None))


def stats(_: Path, repository: Repository) -> str:
    """Measure it, as ``stats`` does: by the index and the lengths of files."""
    return str(total_usage(repository, partial(list_maps, repository.storage), lambda: None))


def stats_backups(_: Path, repository: Repository) -> str:
    """Find out what the removal of each backup would free: ``stats --backups``."""
    owners = {file.name: owner for owner, file in enumerate(list_maps(repository.storage))}
    shares = exclusive_usage(
        repository, partial(list_maps, repository.storage), owners, lambda: None
    )
    return f"{len(owners)} backups, {shares.shared_bytes} bytes are of several"


# In this order: the last two change it.
STEPS: Mapping[str, Callable[[Path, Repository], str]] = {
    "open": open_it,
    "look-up": look_up,
    "plan": plan,
    "stats": stats,
    "stats-backups": stats_backups,
    "check": check,
    "write": write,
    "clean": clean,
    "clean-disk": clean_disk,
}


def main() -> None:
    """Do what the command line asks for."""
    step, target = sys.argv[1], Path(sys.argv[2])
    started_s = time.monotonic()
    if step == "build":
        build(target, *map(int, sys.argv[3:]))
        said = "built"
    else:
        repository = find_repository(StorageLocation.of(target))
        if repository is None:
            sys.exit(f"no repository: {target}")
        said = STEPS[step](target, repository)
    print(f"{step}: {time.monotonic() - started_s:.1f} s: {said}")


if __name__ == "__main__":
    main()
