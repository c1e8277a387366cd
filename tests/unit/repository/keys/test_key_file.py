"""storage/key_file.py: a key file is private, or refused."""

import os
import stat

import pytest

from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.repository.storage.key_file import make_key_file, read_key_file


def test_a_key_file_is_made_private_and_once(tmp_path):
    path = tmp_path / "key"
    secret = make_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path) == make_key_file(path) == secret
    assert make_key_file(tmp_path / "other") != secret
    assert sorted(each.name for each in tmp_path.iterdir()) == ["key", "other"]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o620, 0o601, 0o610, 0o644])
def test_a_key_file_that_others_may_use_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    make_key_file(path)
    path.chmod(mode)
    for call in (read_key_file, make_key_file):
        with pytest.raises(ConfigError, match="others may use") as error:
            call(path)
        assert error.value.exit_code == 2
        assert "chmod 600" in error.value.hint


def test_a_key_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "key"
    make_key_file(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_key_file(path)


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "pipe"])
def test_a_key_file_is_a_file_of_its_own(tmp_path, kind):
    path, real = tmp_path / "key", tmp_path / "real"
    make_key_file(real)
    match kind:
        case "link":
            path.symlink_to(real)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "directory":
            path.mkdir(0o700)
        case _:
            os.mkfifo(path, 0o600)
    for call in (read_key_file, make_key_file):
        with pytest.raises(ConfigError):
            call(path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "x\n", "virtbackup-key-1:AAAA\n", "a\nb\n", "\x00\xff", "x" * 9999]
)
def test_a_damaged_key_file_is_refused_without_its_content(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    for call in (read_key_file, make_key_file):
        with pytest.raises(ConfigError) as error:
            call(path)
        assert "AAAA" not in str(error.value)
    assert path.read_text() == text


def test_a_key_file_that_is_missing_is_not_made_by_a_reader(tmp_path):
    with pytest.raises(ConfigError, match="missing key file"):
        read_key_file(tmp_path / "key")
    with pytest.raises(StorageError, match="none"):
        make_key_file(tmp_path / "none" / "key")
    assert list(tmp_path.iterdir()) == []
