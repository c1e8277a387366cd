"""The sealed keys of runs: small files that the chunks of a sealed repository cannot do without.

::

    run-keys/<token>-<run>-0      the key of a run, for all packs of a writer
    run-keys/<token>-<run>-1      the same again: without it, all that the run stored is lost

A writer's packs have chunks of its own run. A prune's have chunks of many runs, so it writes their
keys again under its own token. So the files of a token are needed as long as there are packs of it.
"""

import re
from collections.abc import Container, Iterable
from contextlib import suppress
from typing import Final

from virtbackup_async.repository.storage.interface import Kind, Storage
from virtbackup_async.repository.storage.layout import RUN_KEYS, token_of

COPIES: Final = 2
_NAME: Final = re.compile(r"([0-9a-f]{24})-([0-9a-f]{32})-([01])")


def write_run_key(storage: Storage, token: str, run: bytes, data: bytes) -> None:
    """Write the key of a run for the packs of a writer, durably, unless it is there. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    storage.make_directory(RUN_KEYS)
    for copy in range(COPIES):
        # Another writer of this process, with the same token, may have been first.
        with suppress(FileExistsError):
            storage.put_new(f"{RUN_KEYS}/{token}-{run.hex()}-{copy}", data)


def run_key_names(storage: Storage) -> list[str]:
    """Return the names of all keys of runs. Blocks.

    Raises:
        StorageError: they cannot be listed.
    """
    try:
        return [name for name in storage.names(RUN_KEYS, {Kind.FILE}) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []


def remove_unneeded(
    storage: Storage, names: Iterable[str], living: Container[str], packs: Iterable[bytes]
) -> None:
    """Remove the keys whose packs are gone. Blocks.

    A pack that comes later is that of a writer that was living, or that came after the names.

    Args:
        storage: of the target.
        names: of all keys, listed first.
        living: the tokens of running writers, found next.
        packs: all packs, listed last.

    Raises:
        StorageError: one cannot be removed.
    """
    tokens = {token_of(pack) for pack in packs}
    for name in names:
        token = name.partition("-")[0]
        if token not in tokens and token not in living:
            with suppress(FileNotFoundError):
                storage.remove(f"{RUN_KEYS}/{name}")


def tokens_of(names: Iterable[str]) -> frozenset[str]:
    """Return the tokens of the writers whose keys have some names."""
    return frozenset(name.partition("-")[0] for name in names)


def by_run(names: Iterable[str]) -> dict[bytes, list[str]]:
    """Return the files of each run, by the names of all keys."""
    found: dict[bytes, list[str]] = {}
    for name in sorted(names):
        run = bytes.fromhex(name.split("-")[1])
        found.setdefault(run, []).append(f"{RUN_KEYS}/{name}")
    return found
