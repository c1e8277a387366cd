"""Errors of reading a repository's files, with the name of the file in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import is_of_the_host, storage_error

REPAIR_HINT: Final = "Run 'virtbackup repair'."


def with_repair_hint(error: CorruptError) -> CorruptError:
    """Return the error with the hint to repair, unless it has a hint."""
    return error.reworded(error.message, REPAIR_HINT)


@contextmanager
def reading(what: str, where: str) -> Iterator[None]:
    """Name the file in the errors of the block; a missing file stays a FileNotFoundError.

    Raises:
        CorruptError: the file is damaged, or cannot be read.
        StorageError: it cannot be read now, for an error that is not the file's own: `repair`
            takes damaged files out of the index, and a prune then removes them.
        FileNotFoundError: it is not there: a prune may have put another in its place.
    """
    try:
        yield
    except CorruptError as error:
        raise error.reworded(f"{what} is damaged: {where}: {error.message}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_of_the_host(error):
            raise storage_error("read", where, error) from error
        raise CorruptError(f"{what} cannot be read: {where}: {error.strerror or error}") from error
