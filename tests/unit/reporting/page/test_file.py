"""The page's file: replaced as a whole, with the mode that it should have."""

import errno
import os

import pytest

from fakes.failing_calls import failing
from virtbackup_async.errors import StorageError
from virtbackup_async.reporting.page.file import last_mailed, write_page


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.html"


def mode_of(path):
    return path.stat().st_mode & 0o777


async def test_a_new_page_is_private(file):
    assert await write_page(file, "<p>ü") == 5
    assert file.read_text() == "<p>ü"
    assert mode_of(file) == 0o600


async def test_a_page_keeps_its_mode_and_the_configuration_changes_it(file):
    file.write_text("old")
    file.chmod(0o640)
    await write_page(file, "new")
    assert (file.read_text(), mode_of(file)) == ("new", 0o640)
    await write_page(file, "newer", 0o644)
    assert (file.read_text(), mode_of(file)) == ("newer", 0o644)


async def test_a_new_page_has_the_configured_mode_whatever_the_umask(file):
    before = os.umask(0o077)
    try:
        await write_page(file, "x", 0o644)
    finally:
        os.umask(before)
    assert mode_of(file) == 0o644


@pytest.mark.parametrize("mode", [None, 0o644])
async def test_what_is_no_file_is_left_alone(tmp_path, mode):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("/dev/null")
    (tmp_path / "directory").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    for name in ("pipe", "stdout", "directory", "link"):
        with pytest.raises(StorageError, match="no regular file"):
            await write_page(tmp_path / name, "x", mode)
    assert (tmp_path / "stdout").is_symlink()
    assert mode_of(tmp_path / "secret") == 0o600


async def test_another_name_of_a_replaced_file_is_not_changed(tmp_path, file):
    """Who owns the directory of a web server may give any file a second name there."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    file.hardlink_to(secret)
    await write_page(file, "page", 0o644)
    assert (secret.read_text(), mode_of(secret)) == ("secret", 0o600)
    assert (file.read_text(), mode_of(file)) == ("page", 0o644)


async def test_a_full_disk_leaves_the_old_page(tmp_path, file):
    file.write_text("old")
    with failing("rename", lambda path: path == file, errno.ENOSPC), pytest.raises(StorageError):
        await write_page(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert file.read_text() == "old"


async def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        await write_page(tmp_path / "no/index.html", "x", 0o644)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ('<meta name="virtbackup-mailed" content="1796000000">', 1796000000),
        ("", None),
        ('<meta name="virtbackup-mailed" content="x">', None),
        ('<meta name="virtbackup-mailed" content="9999999999999999999">', None),
        ("x" * 5000 + '<meta name="virtbackup-mailed" content="17">', None),
    ],
)
async def test_a_page_says_when_it_was_mailed(file, head, found):
    file.write_text(head)
    assert await last_mailed(file) == found


async def test_where_there_is_no_page_none_was_mailed(file):
    assert await last_mailed(file) is None
