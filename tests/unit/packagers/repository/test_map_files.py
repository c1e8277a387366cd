"""packagers/repository/map_files.py: which maps a target has, and whose they are."""

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import open_storage


def make(target, *names):
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def maps_of(target):
    return list_maps(open_storage(StorageLocation.of(target)))


def test_the_maps_of_a_disk_follow_each_other_by_date(tmp_path):
    make(
        tmp_path,
        "web/20260302-021500_3_web_vda.raw.map",
        "web/20260301-021500_3_web_vdb.raw.map",
        "web/20260301-021500_4_web_vda.raw.map",
        "db/20260301-021500_3_db_vda.raw.map",
        "web/20260301-021500_3_web.json",
    )
    names = [file.name.rpartition("/")[2].removesuffix(".raw.map") for file in maps_of(tmp_path)]
    assert names == [
        "20260301-021500_3_db_vda", "20260301-021500_4_web_vda", "20260302-021500_3_web_vda",
        "20260301-021500_3_web_vdb",
    ]  # fmt: skip
    disks = [file.disk for file in maps_of(tmp_path)]
    assert disks[1] == disks[2]
    assert len(set(disks)) == 3


def test_a_disk_of_the_same_name_in_another_domain_is_another_one(tmp_path):
    make(tmp_path, "a/1_2_x_vda.map", "b/1_2_x_vda.map")
    one, other = maps_of(tmp_path)
    assert one.disk != other.disk


def test_what_is_hidden_holds_no_maps(tmp_path):
    make(tmp_path, ".virtbackup-repository/x.map", "file.map")
    assert maps_of(tmp_path) == []


def test_maps_behind_a_link_are_not_passed_over(tmp_path):
    make(tmp_path / "elsewhere", "1_2_x_vda.map")
    target = tmp_path / "target"
    target.mkdir()
    (target / "web").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symlink"):
        maps_of(target)


def test_a_target_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        maps_of(tmp_path / "none")
