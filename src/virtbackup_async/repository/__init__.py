"""A repository: the store in a target that holds equal data once, shared by all its backups.

These names are the face: other layers import nothing from the folders below. A name loads its
module only when it is first asked for, since some of them load numpy, which takes as long as all
the rest of a backup's modules.

::

    find_repository, make_repository        the repository of a target
    ChunkWriters, MapWriter, BaseMap        store a backup: chunks, then the map of each image
    ChunkReader, open_map                   read it back
    CheckSession, need_map, lost_ranges_of  check chunks, and find the lost ranges of images
    repair_repository_file .. note_known_damage     the steps of a repair, in this order
    prune_repository                        remove the chunks that no map needs
    total_usage, exclusive_usage            measure the space, in all and for each backup
    list_key_slots, open_key_changes        the keys of an encrypted repository
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtbackup_async.repository.check.check import Check
    from virtbackup_async.repository.check.lost_ranges import (
        LostRanges,
        MapFacts,
        lost_ranges_of,
        need_map,
    )
    from virtbackup_async.repository.check.repair import (
        drop_bad_entries,
        drop_damaged_pending_deletion,
        note_known_damage,
        reindex_packs,
        repair_heads,
    )
    from virtbackup_async.repository.check.session import CheckSession
    from virtbackup_async.repository.check.without_key import check_without_key
    from virtbackup_async.repository.data.base_map import BaseMap
    from virtbackup_async.repository.data.chunk_reader import ChunkReader, ChunkSource
    from virtbackup_async.repository.data.chunk_writer import ChunkWriter, ChunkWriters, Packed
    from virtbackup_async.repository.data.maps import ChunkMap, MapWriter, data_extents, open_map
    from virtbackup_async.repository.data.read_ahead import ReadAhead
    from virtbackup_async.repository.format.chunks import CHUNK_BYTES, length_of, pages_of
    from virtbackup_async.repository.format.map_format import (
        Entries,
        MapEntry,
        MapHead,
        data_length_of,
        entries_of,
    )
    from virtbackup_async.repository.format.pack_format import Data
    from virtbackup_async.repository.prune.prune import Pruned, prune_repository
    from virtbackup_async.repository.storage.interface import HeldDirectory, Kind, Storage
    from virtbackup_async.repository.storage.key import Key
    from virtbackup_async.repository.storage.key_access import (
        SlotFacts,
        SlotList,
        check_public_key,
        drop_key,
        hold_key,
        key_of_file,
        key_of_paper,
        key_of_passphrase,
        list_key_slots,
        new_paper,
        open_key_changes,
        written_on_paper,
    )
    from virtbackup_async.repository.storage.key_changes import KeyChanges
    from virtbackup_async.repository.storage.layout import MapFile, Repository
    from virtbackup_async.repository.storage.leases import Lease, open_leased, take_prune_lease
    from virtbackup_async.repository.storage.object_locks import (
        BucketLock,
        ExtendedLocks,
        extend_locks,
        lock_of_bucket,
    )
    from virtbackup_async.repository.storage.package_leases import is_used, take_package_lease
    from virtbackup_async.repository.storage.repository_file import (
        find_repository,
        is_append_only,
        make_repository,
        open_inner,
        open_storage,
        probe_storage,
        repair_repository_file,
    )
    from virtbackup_async.repository.storage.served.serving import serve_directory
    from virtbackup_async.repository.storage.store_requests import requests_so_far
    from virtbackup_async.repository.storage.times import modified_times
    from virtbackup_async.repository.storage.twins import prepare_copy, refuse_copy
    from virtbackup_async.repository.usage.exclusive import exclusive_usage
    from virtbackup_async.repository.usage.totals import Totals, total_usage

__all__ = [
    "CHUNK_BYTES",
    "BaseMap",
    "BucketLock",
    "Check",
    "CheckSession",
    "ChunkMap",
    "ChunkReader",
    "ChunkSource",
    "ChunkWriter",
    "ChunkWriters",
    "Data",
    "Entries",
    "ExtendedLocks",
    "HeldDirectory",
    "Key",
    "KeyChanges",
    "Kind",
    "Lease",
    "LostRanges",
    "MapEntry",
    "MapFacts",
    "MapFile",
    "MapHead",
    "MapWriter",
    "Packed",
    "Pruned",
    "ReadAhead",
    "Repository",
    "SlotFacts",
    "SlotList",
    "Storage",
    "Totals",
    "check_public_key",
    "check_without_key",
    "data_extents",
    "data_length_of",
    "drop_bad_entries",
    "drop_damaged_pending_deletion",
    "drop_key",
    "entries_of",
    "exclusive_usage",
    "extend_locks",
    "find_repository",
    "hold_key",
    "is_append_only",
    "is_used",
    "key_of_file",
    "key_of_paper",
    "key_of_passphrase",
    "length_of",
    "list_key_slots",
    "lock_of_bucket",
    "lost_ranges_of",
    "make_repository",
    "modified_times",
    "need_map",
    "new_paper",
    "note_known_damage",
    "open_inner",
    "open_key_changes",
    "open_leased",
    "open_map",
    "open_storage",
    "pages_of",
    "prepare_copy",
    "probe_storage",
    "prune_repository",
    "refuse_copy",
    "reindex_packs",
    "repair_heads",
    "repair_repository_file",
    "requests_so_far",
    "serve_directory",
    "take_package_lease",
    "take_prune_lease",
    "total_usage",
    "written_on_paper",
]  # fmt: skip

_NAMES: Final = {
    "check.check": ("Check",),
    "check.lost_ranges": ("LostRanges", "MapFacts", "lost_ranges_of", "need_map"),
    "check.repair": (
        "drop_bad_entries", "drop_damaged_pending_deletion", "note_known_damage", "reindex_packs",
        "repair_heads",
    ),
    "check.session": ("CheckSession",),
    "check.without_key": ("check_without_key",),
    "data.base_map": ("BaseMap",),
    "data.chunk_reader": ("ChunkReader", "ChunkSource"),
    "data.chunk_writer": ("ChunkWriter", "ChunkWriters", "Packed"),
    "data.maps": ("ChunkMap", "MapWriter", "data_extents", "open_map"),
    "data.read_ahead": ("ReadAhead",),
    "format.chunks": ("CHUNK_BYTES", "length_of", "pages_of"),
    "format.map_format": ("Entries", "MapEntry", "MapHead", "data_length_of", "entries_of"),
    "format.pack_format": ("Data",),
    "prune.prune": ("Pruned", "prune_repository"),
    "storage.interface": ("HeldDirectory", "Kind", "Storage"),
    "storage.key_access": (
        "SlotFacts", "SlotList", "check_public_key", "drop_key", "hold_key", "key_of_file",
        "key_of_paper", "key_of_passphrase", "list_key_slots", "new_paper", "open_key_changes",
        "written_on_paper",
    ),
    "storage.key": ("Key",),
    "storage.key_changes": ("KeyChanges",),
    "storage.layout": ("MapFile", "Repository"),
    "storage.leases": ("Lease", "open_leased", "take_prune_lease"),
    "storage.package_leases": ("is_used", "take_package_lease"),
    "storage.object_locks": (
        "BucketLock", "ExtendedLocks", "extend_locks", "lock_of_bucket",
    ),
    "storage.repository_file": (
        "find_repository", "is_append_only", "make_repository", "open_inner",
        "open_storage", "probe_storage",
        "repair_repository_file",
    ),
    "storage.served.serving": ("serve_directory",),
    "storage.store_requests": ("requests_so_far",),
    "storage.times": ("modified_times",),
    "storage.twins": ("prepare_copy", "refuse_copy"),
    "usage.exclusive": ("exclusive_usage",),
    "usage.totals": ("Totals", "total_usage"),
}  # fmt: skip
_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker is to know these names, and no others

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
