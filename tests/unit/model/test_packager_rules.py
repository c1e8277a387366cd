"""Which packagers and options are taken, and in which one way they are written down."""

import pytest

from virtbackup_async.model.packager_rules import check_packager, clean_options, known_options


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
    assert check_packager(packager, opts) == []


@pytest.mark.parametrize(
    ("packager", "opts", "problem"),
    [
        ("zip", {}, "packager: found 'zip', expected one of directory, tar, zstd, repository"),
        ("", {}, "packager: found '', expected one of directory, tar, zstd, repository"),
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
    assert check_packager(packager, opts) == [problem]


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
    assert clean_options(packager, opts) == cleaned
    assert opts == before
    assert set(cleaned) <= set(known_options(packager))
