"""Bounded reading of the small JSON files of backups, which can be damaged or hostile.

``definition_file`` and ``pending_file`` share these functions. Invariant: whatever a file contains,
the result is a checked value or a :class:`DefinitionError` that names file and field;
nothing but a regular file of at most 16 MiB is read, and no symlink is followed.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from virtbackup_async.compat.steps import Raw
from virtbackup_async.errors import DefinitionError
from virtbackup_async.files.reached_path import UnfitFileError, read_file_in
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.names import is_plain_name
from virtbackup_async.model.target_file import AnyFile, TargetFile
from virtbackup_async.repository import open_storage

FILE_MAX_BYTES: Final = 16 * 1024 * 1024
_UNREADABLE: Final = "is not readable JSON"
# The last day that datetime can show in every time zone.
DATE_MAX: Final = 253402214400

# Made once: a scan decodes thousands of files.
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])

Wire = TypeVar("Wire")


def read_bytes(file: TargetFile) -> bytes:
    """Return the content of a small file of a target. Blocks.

    Raises:
        DefinitionError: it is not a regular file, or larger than 16 MiB.
        OSError: it is missing, a symlink, or cannot be read.
        StorageError: the storage cannot be reached.
    """
    storage = open_storage(file.target)
    with closing(storage.open_directory(file.parent.stored_name)) as directory:
        try:
            return directory.read(file.name, FILE_MAX_BYTES)
        except UnfitFileError as error:
            raise unfit(error, file) from error


def read_host_file(path: Path) -> bytes:
    """Return the content of a small file of this host, in a directory of its own; as above."""
    with TargetPath.in_domain(path).parent.entered() as directory:
        try:
            return read_file_in(directory, path.name, path.parent, FILE_MAX_BYTES)
        except UnfitFileError as error:
            raise unfit(error, path) from error


def unfit(error: UnfitFileError, path: AnyFile) -> DefinitionError:
    """Return the error for a file that is not the kind of file to read."""
    return DefinitionError(str(error.strerror), path=path)


def parse(data: bytes, path: AnyFile, upgrade: Callable[[Raw], Raw], wire: type[Wire]) -> Wire:
    """Return ``data`` as a ``wire`` struct, after the compat steps; ``path`` is for messages.

    Raises:
        DefinitionError: it is not JSON, not of that shape, or of a newer version.
    """
    if not data:
        hint = "See that the domain is on its own image, then remove the file."
        is_pending = path.name.endswith(".pending")
        raise DefinitionError("is empty", path=path, hint=hint if is_pending else None)
    try:
        return msgspec.convert(upgrade(_OBJECT.decode(data)), wire)
    except DefinitionError as error:
        raise DefinitionError(error.message, path=path, hint=error.hint) from error
    except msgspec.ValidationError as error:
        raise DefinitionError(_in_words(str(error)), path=path) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise DefinitionError(f"{_UNREADABLE}: {_in_words(str(error))}", path=path) from error
    except RecursionError as error:
        raise DefinitionError("nested too deeply", path=path) from error


def as_object(data: bytes, path: AnyFile) -> dict[str, Any]:
    """Return the keys of a file, unconverted; ``path`` is for messages.

    Raises:
        DefinitionError: it is no JSON object. The decoder of a struct ignores unknown parts of a
            file, so it can accept a file that this one refuses.
    """
    try:
        return _OBJECT.decode(data)
    except msgspec.ValidationError as error:
        raise DefinitionError(_in_words(str(error)), path=path) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DefinitionError(f"{_UNREADABLE}: {_in_words(str(error))}", path=path) from error


def dump(wire: msgspec.Struct) -> bytes:
    """Return a struct as the indented JSON that virt-backup writes too."""
    return msgspec.json.format(msgspec.json.encode(wire), indent=4) + b"\n"


def check_date(date: int, path: AnyFile) -> None:
    """Raise DefinitionError unless ``date`` (seconds since the epoch) can be shown."""
    if not 0 <= date <= DATE_MAX:
        raise DefinitionError(f"date {date} is out of range", path=path)


def check_file(file: str, name: str, path: AnyFile, field: str, *, ours: bool) -> None:
    """Raise DefinitionError unless ``file`` is a plain name that belongs to the backup ``name``.

    virt-backup reads the domain's id again for each file that it names. So only the date at the
    start is certainly the same in all names of one of its backups.
    """
    prefix = name if ours else name.partition("_")[0]
    if not is_plain_name(file) or not file.startswith(f"{prefix}_"):
        raise DefinitionError(f"{field} {file!r:.300} is not a file of this backup", path=path)


def check_name(name: str, path: AnyFile, suffix: str, *, ours: bool) -> None:
    """Raise DefinitionError unless ``name`` is plain, and in this program's files the file's."""
    if not is_plain_name(name):
        raise DefinitionError(f"name {name!r:.300} is not a file name", path=path)
    if ours and path.name != name + suffix:
        raise DefinitionError(f"holds the backup {name}, so this is not its file", path=path)


def _in_words(message: str) -> str:
    """Reword msgspec's ``Expected `int`, got `str` - at `$.date``` as a message of this program."""
    problem, _, where = message.partition(" - at `$")
    problem = problem[:1].lower() + problem[1:].replace("`", "'")
    field = where.rstrip("`").removeprefix(".")
    return f"{field}: {problem}" if field else problem
