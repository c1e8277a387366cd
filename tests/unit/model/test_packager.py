"""model/packager.py: the files, sizes and options of each type of packager."""

from pathlib import Path

import pytest

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import Definition, DiskRecord, ImageRecord, Packager
from virtbackup_async.model.packager import (
    PACKAGER_TYPES,
    Location,
    backup_files,
    package_files,
    type_named,
    type_of,
)

HERE = Path("/target/web")


@pytest.mark.parametrize(
    ("packager", "opts"),
    [
        ("directory", {}),
        ("directory", {"compression": "lz4", "compression_lvl": 99}),
        ("tar", {}),
        ("tar", {"compression": None, "compression_lvl": None}),
        ("tar", {"compression": "tar"}),
        *(("tar", {"compression": name}) for name in ("gz", "bz2", "xz")),
        *(("tar", {"compression": "gz", "compression_lvl": level}) for level in (1, 9)),
        *(("tar", {"compression": "xz", "compression_lvl": level}) for level in (0, 9)),
        *(("zstd", {"compression_lvl": level}) for level in (0, 1, 22)),
        ("tar", {"unknown": 1}),
    ],
)
def test_options_that_are_fine(packager, opts):
    assert type_named(packager).problems(opts) == []


@pytest.mark.parametrize(
    ("packager", "opts", "problem"),
    [
        ("tar", {"compression": "zst"}, "compression: found 'zst', expected none, gz, bz2 or xz"),
        ("tar", {"compression": False}, "compression: found False, expected none, gz, bz2 or xz"),
        ("tar", {"compression": ["gz"]}, "compression: found ['gz'], expected none, gz, bz2 or xz"),
        *(
            (
                "tar",
                {"compression": "gz", "compression_lvl": level},
                f"compression_lvl: found {level!r}, expected a whole number from 1 to 9",
            )
            for level in (0, 10, "6", 6.0, True)
        ),
        (
            "tar",
            {"compression": "xz", "compression_lvl": 10},
            "compression_lvl: found 10, expected a whole number from 0 to 9",
        ),
        (
            "zstd",
            {"compression_lvl": 23},
            "compression_lvl: found 23, expected a whole number from 0 to 22",
        ),
    ],
)
def test_options_that_are_wrong(packager, opts, problem):
    assert type_named(packager).problems(opts) == [problem]


@pytest.mark.parametrize(
    ("packager", "opts", "cleaned"),
    [
        ("tar", {"compression": "None", "compression_lvl": 6}, {"compression_lvl": 6}),
        ("tar", {"compression": "tar"}, {}),
        ("tar", {"compression": None}, {}),
        ("tar", {"compression": "gz", "x": 1}, {"compression": "gz"}),
        ("zstd", {"compression": "gz", "compression_lvl": 0, "threads": 4}, {"compression_lvl": 0}),
        ("directory", {"compression_lvl": 6}, {}),
        ("unknown", {"compression_lvl": 6}, {}),
    ],
)
def test_options_are_written_in_one_way(packager, opts, cleaned):
    before = dict(opts)
    assert type_named(packager).clean(opts) == cleaned
    assert opts == before
    assert set(cleaned) <= set(type_named(packager).options)


FILES = ["n_vda.raw", "n_vdb.raw"]


@pytest.mark.parametrize(
    ("packager", "expected"),
    [
        (Packager("directory"), ["n_vda.raw", "n_vdb.raw"]),
        (Packager("tar"), ["n.tar"]),
        (Packager("tar", {"compression": "tar"}), ["n.tar"]),
        (Packager("tar", {"compression": "gz"}), ["n.tar.gz"]),
        (Packager("tar", {"compression": "bz2", "compression_lvl": 3}), ["n.tar.bz2"]),
        (Packager("tar", {"compression": "xz"}), ["n.tar.xz"]),
        (Packager("zstd"), ["n_n_vda.raw.zstd", "n_n_vdb.raw.zstd"]),
        (Packager("repository"), ["n_vda.raw.map", "n_vdb.raw.map"]),
    ],
    ids=str,
)
def test_files_are_named_as_virt_backup_names_them(packager, expected):
    location = Location.below(HERE, packager, "n")
    assert location.paths(FILES) == tuple(HERE / name for name in expected)
    backup = definition(packager)
    assert package_files(backup) == expected
    assert tuple(file.local for file in backup_files(backup, HERE)) == location.paths(FILES)


@pytest.mark.parametrize("packager", [*map(Packager, PACKAGER_TYPES)], ids=str)
def test_a_file_in_the_directory_is_known_by_its_name(packager):
    kind, file = type_of(packager), "n_vda.raw"
    (entry,) = kind.file_names(packager, "n", [file])
    if len(kind.file_names(packager, "n", FILES)) == 1:
        assert kind.packed_name("n", entry) is None, "an archive"
        return
    assert kind.packed_name("n", entry) == file
    for other in ("n", "x_vda.raw", f"x{entry}", entry.replace("n_", "m_", 1)):
        assert kind.packed_name("n", other) is None


def test_a_tar_without_disks_is_a_file():
    assert Location.below(HERE, Packager("tar"), "n").paths([]) == (HERE / "n.tar",)


def test_name_with_tar_in_it_gets_no_suffix():
    packager = Packager("tar", {"compression": "gz"})
    assert Location.below(HERE, packager, "n_my.tar.vm").paths(FILES) == (HERE / "n_my.tar.vm",)


@pytest.mark.parametrize("compression", ["../x", "zip", 3, ["gz"], {}])
def test_unknown_compression_of_a_definition_is_refused(compression):
    with pytest.raises(DefinitionError, match="unknown tar compression"):
        Location.below(HERE, Packager("tar", {"compression": compression}), "n").paths(FILES)


@pytest.mark.parametrize("type_", [*PACKAGER_TYPES, "rar"])
@pytest.mark.parametrize("name", ["../n", "", "..", "a\0", "a/b", ".n", "n" * 256])
def test_no_name_leads_out_of_the_directory(type_, name):
    for location, files in (
        (Location.below(HERE, Packager(type_), name), FILES),
        (Location.below(HERE, Packager(type_), "n"), [name]),
    ):
        with pytest.raises(DefinitionError):
            location.paths(files)


def test_an_unknown_packager_is_reported_where_its_files_are_needed():
    packager = Packager("rar")
    assert not type_of(packager).is_known
    assert not type_of(packager).uses_repository
    assert not type_of(packager).is_incremental
    assert package_files(definition(packager)) == []
    with pytest.raises(DefinitionError, match="unknown packager of n: 'rar'"):
        backup_files(definition(packager), HERE)


@pytest.mark.parametrize(
    ("packager_type", "sizes"),
    [("directory", [100, 1]), ("tar", [40]), ("zstd", [40, 1]), ("repository", [40, 1])],
)
def test_each_file_has_a_least_size(packager_type, sizes):
    backup = definition(Packager(packager_type))
    assert type_named(packager_type).least_bytes(backup, FILES) == sizes


def definition(packager):
    image = ImageRecord("n_vda.raw", "/vda", "raw", 100, 50, 40, "")
    disks = {"vda": "n_vda.raw", "vdb": "n_vdb.raw"}
    records = {"vda": DiskRecord(image)}
    return Definition("n", 3, "web", "<domain/>", disks, "1", 1, packager, records=records)
