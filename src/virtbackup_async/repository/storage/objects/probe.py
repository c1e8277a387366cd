"""Finds out what an object store keeps of its promises, and records it in the repository.

::

    create twice           the second one must be refused, and must change nothing
    create in a race       of eight, one must win
    overwrite a stale one  must be refused
    list after a write     must show it: without that, no repository is safe

A repository needs conditions for one name alone, the lease ``sweep``. Where the store ignores them
or lacks them, one host is allowed to prune, the first that probed the store; others are refused.
The record is made once, by the first process that takes a lease; ``doctor`` probes each time.
"""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.layout import DIRECTORY, LEASES
from virtbackup_async.repository.storage.objects.calls import ObjectCalls
from virtbackup_async.repository.storage.this_host import host_id, host_name

RECORD: Final = f"{DIRECTORY}/store"
RACERS: Final = 8
# Of two hosts that record at the same moment both see in the end who was last.
SETTLE_S: Final = 2.0
_FORMAT: Final = "virtbackup store"


class Probed(Struct, frozen=True):
    """What a store keeps of its promises.

    Attributes:
        has_conditions: whether it creates and overwrites only on a condition.
        lists_at_once: whether a list shows what was written before.
        sweep_host: the host that may prune if there are no conditions, as ``host_id`` names it.
        sweep_host_name: the same for people.
    """

    has_conditions: bool
    lists_at_once: bool
    sweep_host: str
    sweep_host_name: str


def probe(calls: ObjectCalls) -> Probed:
    """Probe a store: some 50 requests, all for objects below ``leases/`` that are removed. Blocks.

    Raises:
        StorageError: the store cannot be used at all.
    """
    names = [f"{LEASES}/.probe-{secrets.token_hex(8)}" for _ in range(4)]
    try:
        calls.can_create = True
        is_listed = _is_listed_at_once(calls, names[0])
        has_conditions = (
            _creates_once(calls, names[0])
            and _creates_for_one(calls, names[1])
            # A write whose answer was lost can arrive again, after a later one.
            and any(_refuses_stale(calls, name) for name in names[2:])
        )
        calls.can_create = has_conditions
        return Probed(has_conditions, is_listed, host_id(), host_name())
    finally:
        for name in names:
            with suppress(StorageError):
                calls.delete(name)


def recorded(calls: ObjectCalls, where: str) -> Probed:
    """Return what is recorded about a store; probe it if nothing is. Blocks.

    Raises:
        StorageError: the store cannot be used, or the record cannot be written.
    """
    found = _read(calls, where)
    if found is None:
        calls.put(RECORD, [_encoded(probe(calls))])
        if not calls.can_create:
            time.sleep(SETTLE_S)
        found = _read(calls, where)
        if found is None:
            raise StorageError(f"cannot read {where}: it was removed this moment")
    calls.can_create = found.has_conditions
    return found


def weaknesses(probed: Probed) -> list[str]:
    """Return a sentence, without its subject, for each promise that a store does not keep."""
    found = []
    if not probed.lists_at_once:
        found.append("does not list what was written a moment before: no backup there is safe")
    if not probed.has_conditions:
        found.append("ignores or lacks conditional writes: only one host can clean there")
    return found


def _creates_once(calls: ObjectCalls, name: str) -> bool:
    with suppress(FileExistsError):
        calls.put_new(name, [secrets.token_bytes(16)])
    try:
        calls.put_new(name, [secrets.token_bytes(16)])
    except FileExistsError:
        return calls.can_create
    return False


def _creates_for_one(calls: ObjectCalls, name: str) -> bool:
    def race(_number: int) -> bool:
        try:
            calls.put_new(name, [secrets.token_bytes(16)])
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as threads:
        return sum(threads.map(race, range(RACERS))) == 1


def _refuses_stale(calls: ObjectCalls, name: str) -> bool:
    stale = calls.put(name, [secrets.token_bytes(16)])
    fresh = secrets.token_bytes(16)
    calls.put(name, [fresh])
    if calls.put_if(name, secrets.token_bytes(16), stale.e_tag) is not None:
        return False
    found = calls.get(name, len(fresh))
    return found is not None and found.data == fresh


def _is_listed_at_once(calls: ObjectCalls, name: str) -> bool:
    calls.put(name, [secrets.token_bytes(16)])
    directory, _, last = name.rpartition("/")
    return last in calls.list_directory(directory)[0]


def _encoded(probed: Probed) -> bytes:
    return sealed_json.dumps(
        {
            "format": _FORMAT,
            "conditions": probed.has_conditions,
            "lists_at_once": probed.lists_at_once,
            "sweep_host": probed.sweep_host,
            "sweep_host_name": probed.sweep_host_name,
        }
    )


def _read(calls: ObjectCalls, where: str) -> Probed | None:
    """Return the record; None if there is none, or a damaged one, which is made anew."""
    found = calls.get(RECORD, sealed_json.MAX_BYTES)
    if found is None:
        return None
    try:
        value = sealed_json.loads(found.data, where)
        return Probed(
            value["conditions"] is True,
            value["lists_at_once"] is True,
            str(value["sweep_host"]),
            str(value["sweep_host_name"]),
        )
    except (CorruptError, KeyError):
        return None
