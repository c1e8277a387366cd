"""Saying of what is wrong in a file of a repository which file it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import is_of_the_host, storage_error

REPAIR_HINT: Final = "Run 'virtbackup repair'."


def with_repair_hint(error: CorruptError) -> CorruptError:
    """Return the error with what to do, unless it says something else itself."""
    return error.reworded(error.message, REPAIR_HINT)


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Name the file in what goes wrong in the block; one that is missing stays what it is.

    Raises:
        CorruptError: the file is damaged, or cannot be read.
        StorageError: it cannot be read now, for an error that is not the file's: what is noted as
            damaged, `repair` takes out of the index, and the prune removes.
        FileNotFoundError: it is not there: the prune may have put another in its place.
    """
    try:
        yield
    except CorruptError as error:
        raise error.reworded(f"{what} is damaged: {path}: {error.message}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_of_the_host(error):
            raise storage_error("read", path, error) from error
        raise CorruptError(f"{what} cannot be read: {path}: {error.strerror or error}") from error
