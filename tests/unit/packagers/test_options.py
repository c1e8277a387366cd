"""packagers/options.py: what a configuration may say."""

import pytest

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.options import validate_opts

GOOD = [
    Packager("directory"),
    Packager("tar"),
    Packager("tar", {"compression": None, "compression_lvl": None}),
    Packager("tar", {"compression": "tar"}),
    Packager("tar", {"compression": "gz", "compression_lvl": 9}),
    Packager("tar", {"compression": "xz", "compression_lvl": 0}),
    Packager("zstd"),
    Packager("zstd", {"compression_lvl": 22, "threads": -1}),
]

BAD = [
    (Packager("rar"), "unknown packager: 'rar'. Use one of directory, tar, zstd"),
    (Packager("directory", {"compression": "gz"}), "packager directory has no option"),
    (Packager("tar", {"threads": 2}), "packager tar has no option 'threads'"),
    (Packager("tar", {"compression": "zip"}), "unknown tar compression: 'zip'. Use one of tar, gz"),
    (Packager("tar", {"compression": ["gz"]}), "unknown tar compression"),
    (Packager("tar", {"compression": "gz", "compression_lvl": 10}), "number from 0 to 9"),
    (Packager("tar", {"compression_lvl": -1}), "compression_lvl is -1"),
    (Packager("zstd", {"compression_lvl": 23}), "number from 0 to 22"),
    (Packager("zstd", {"compression_lvl": "3"}), "compression_lvl is '3'"),
    (Packager("zstd", {"compression_lvl": True}), "compression_lvl is True"),
    (Packager("zstd", {"threads": -2}), "number from -1 to 64"),
]


@pytest.mark.parametrize("packager", GOOD, ids=str)
def test_takes_what_a_writer_can_do(packager):
    validate_opts(packager)


@pytest.mark.parametrize(("packager", "said"), BAD, ids=lambda value: str(value)[:40])
def test_says_what_is_wrong_and_what_would_be_right(packager, said):
    with pytest.raises(ConfigError) as raised:
        validate_opts(packager)
    assert said in str(raised.value)
