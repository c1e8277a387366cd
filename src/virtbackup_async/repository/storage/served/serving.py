"""``virtbackup store-server``: serves a directory to one client on standard input and output."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import check_target
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.layout import DIRECTORY
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.served.append_only import AppendOnlyStorage
from virtbackup_async.repository.storage.served.channel import Channel
from virtbackup_async.repository.storage.served.quota import QuotaStorage, measure_directory
from virtbackup_async.repository.storage.served.session import SILENCE_S, serve


def serve_directory(
    directory: Path, *, append_only: bool = False, quota_bytes: int | None = None
) -> None:
    """Serve a directory on standard input and output until the client is gone. Blocks.

    Args:
        directory: the target.
        append_only: whether the client may only add files.
        quota_bytes: how many bytes the files of the target may have.

    Raises:
        StorageError: there is no such directory, or the client broke the protocol.
    """
    directory = Path(os.path.realpath(directory))
    check_target(directory)
    storage: Storage = LocalStorage(directory, DIRECTORY)
    if quota_bytes is not None:
        storage = QuotaStorage(storage, quota_bytes, partial(measure_directory, directory))
    if append_only:
        storage = AppendOnlyStorage(storage)
    serve_streams(storage, append_only=append_only)


def serve_streams(storage: Storage, *, append_only: bool = False) -> None:
    """Serve a storage on standard input and output until the client is gone. Blocks.

    Raises:
        StorageError: the client broke the protocol, or a signal ended the session.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    channel = Channel(*_take_streams(), SILENCE_S)
    serve(storage, channel, append_only=append_only)


def _take_streams() -> tuple[int, int]:
    """Return descriptors of both streams that nothing else in this process uses.

    A library that prints would break the protocol: standard output is standard error from now on.
    """
    sys.stdout.flush()
    streams = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return streams


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End the session in order: what the client has open is discarded."""
    signal.signal(number, signal.SIG_IGN)
    raise StorageError(f"stopped by {signal.Signals(number).name}")
