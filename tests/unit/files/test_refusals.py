"""files/refusals.py: a path that cannot be looked at is not one that is gone."""

import errno
import os
import stat

import pytest

from virtbackup_async.errors import (
    CorruptError,
    NewerVersionError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.files.refusals import look_at, reading


def test_what_is_there_has_a_status(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert stat.S_ISDIR(look_at(link).st_mode)
    assert stat.S_ISLNK(look_at(link, follow=False).st_mode)


def test_what_is_gone_has_none(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for gone in (tmp_path / "gone", tmp_path / "gone" / "below", file / "below"):
        assert look_at(gone) is None


def test_what_cannot_be_looked_at_is_an_error(tmp_path):
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for path in (circle, tmp_path / ("x" * (os.pathconf(tmp_path, "PC_NAME_MAX") + 1))):
        with pytest.raises(StorageError, match="cannot look at"):
            look_at(path)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.EIO, "I/O error"), CorruptError, "index cannot be read: x: I/O error"),
        (OSError(errno.ESTALE, "stale"), StorageError, "cannot read x: stale"),
        (CorruptError("no end", hint="Do it."), CorruptError, "index is damaged: x: no end"),
        (NewerVersionError("newer"), NewerVersionError, "index is damaged: x: newer"),
    ],
)
def test_an_error_of_reading_names_the_file(error, kind, message):
    with pytest.raises(kind) as raised, reading("index", "x"):
        raise error
    assert type(raised.value) is kind
    assert raised.value.message == message
    if isinstance(error, VirtBackupError):
        assert raised.value.hint == error.hint


def test_a_file_that_is_missing_stays_missing():
    with pytest.raises(FileNotFoundError), reading("index", "x"):
        raise FileNotFoundError(errno.ENOENT, "gone", "x")
