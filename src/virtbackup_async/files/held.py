"""Directories that must not be exchanged while the program works in them.

::

    held at the beginning      the kernel keeps the directory, even if its name is taken away
    checked at the end         does the name still lead to it?

Without this, an exchange could not do harm outside the target. But a backup could be recorded as
complete while a part of it is elsewhere.
"""

import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from anyio import CancelScope, to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.target_file import TargetFile

_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Held:
    """Some directories of a target; ``close`` it."""

    def __init__(self, directories: Iterable[TargetPath]) -> None:
        """Open the directories. Blocks.

        Raises:
            StorageError: one is missing, or it or a directory above it is a link.
        """
        self._held: list[tuple[TargetPath, int]] = []
        try:
            for directory in directories:
                self._hold(directory)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Check that each is still in its place. Blocks.

        Raises:
            StorageError: one was exchanged or removed.
        """
        for directory, fd in self._held:
            try:
                with directory.entered() as now:
                    is_same = os.path.samestat(os.fstat(fd), os.fstat(now))
            except OSError:
                is_same = False
            if not is_same:
                raise StorageError(
                    f"{directory} was moved, or replaced by something else, during the run",
                    hint="See who else can write to the target, then run the command again.",
                )

    def close(self) -> None:
        while self._held:
            _, fd = self._held.pop()
            close(fd)

    def _hold(self, directory: TargetPath) -> None:
        try:
            with directory.entered() as fd:
                self._held.append((directory, os.open(".", _FLAGS, dir_fd=fd)))
        except OSError as error:
            raise storage_error("use", directory.path, error) from error


def to_hold(directory: TargetFile) -> list[TargetPath]:
    """Return a domain's directory, if it is one of this machine that others could exchange."""
    return [] if directory.target.plain_directory is None else [TargetPath.at(directory)]


@asynccontextmanager
async def open_held(directories: Sequence[TargetPath]) -> AsyncGenerator[Held]:
    """Hold directories while the block runs.

    Raises:
        StorageError: one is missing, or it or a directory above it is a link.
    """
    with CancelScope(shield=True):
        held = await to_thread.run_sync(Held, directories)
    try:
        yield held
    finally:
        held.close()
