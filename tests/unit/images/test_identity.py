import os
import shutil
from pathlib import Path

from virtbackup_async.images.identity import (
    backing_id,
    image_id,
    is_same_backing,
    is_same_image,
)
from virtbackup_async.model.domain import BackingImage


def test_an_image_stays_the_same_while_it_is_written_to(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"1")
    other.write_bytes(b"1")
    before = image_id(path)
    shutil.copyfile(other, path)
    assert image_id(path) == before
    assert image_id(other) != before
    assert image_id(tmp_path / "gone") is None


def test_a_file_that_gets_the_inode_of_another_one_is_told_from_it():
    assert not is_same_image("inode 7 born 1.000000001", "inode 7 born 1.000000002")
    assert not is_same_image("inode 7 born 1.000000001", "inode 8 born 1.000000001")
    assert is_same_image("inode 7 born 1.000000001", "inode 7 born 1.000000001")


def test_what_earlier_versions_recorded_is_compared_as_far_as_it_goes():
    assert is_same_image("inode 7", "inode 7 born 1.000000001")
    assert not is_same_image("inode 7", "inode 77 born 1.000000001")
    assert is_same_image(None, None)
    assert not is_same_image(None, "inode 7")


def test_the_time_of_birth_is_that_of_the_file_system(tmp_path):
    path = tmp_path / "a"
    before_ns = path.parent.stat().st_ctime_ns
    path.touch()
    os.utime(path, (0, 0))
    _, _, born = (image_id(path) or "").partition(" born ")
    seconds, _, parts = born.partition(".")
    assert before_ns <= int(seconds) * 10**9 + int(parts) <= path.stat().st_ctime_ns


def test_an_image_below_that_was_written_to_is_another_one(tmp_path):
    image = BackingImage(tmp_path / "a", "raw")
    image.path.write_bytes(b"1")
    before = backing_id(image, with_times=True)
    assert is_same_backing(before, backing_id(image, with_times=True))
    assert is_same_backing(before, backing_id(image, with_times=False))
    os.utime(image.path, (1, 1))
    assert not is_same_backing(before, backing_id(image, with_times=True))
    assert is_same_backing(backing_id(image, with_times=False), backing_id(image, with_times=True))
    image.path.unlink()
    assert not is_same_backing(before, backing_id(image, with_times=True))


def test_of_a_device_below_only_the_name_is_known():
    assert backing_id(BackingImage(Path("/dev/null"), "raw"), with_times=True) == "/dev/null"
