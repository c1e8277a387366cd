"""files/target_path.py: whatever stands in the way, nothing beyond the target is touched."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.held import Held
from virtbackup_async.files.reached_path import ReachedPath, UnfitFileError, read_file_in
from virtbackup_async.files.target_path import TargetPath

OUTSIDE = b"outside"


class Site:
    """A target with a directory ``web``, and a directory of somebody else's beside the target."""

    def __init__(self, root: Path) -> None:
        self.target = root / "target"
        self.outside = root / "outside"
        for directory in (self.target / "web" / "deep", self.outside / "deep"):
            directory.mkdir(parents=True)
        for directory in (self.outside, self.outside / "deep"):
            (directory / "file").write_bytes(OUTSIDE)
        (self.target / "web" / "deep" / "file").write_bytes(b"inside")

    @property
    def deep(self) -> TargetPath:
        return TargetPath(self.target) / "web" / "deep"

    @property
    def file(self) -> TargetPath:
        return self.deep / "file"

    def seen_outside(self):
        return sorted(
            (str(path), path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
            for path in (self.outside, *self.outside.rglob("*"))
        )


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def link_the_last(site):
    """The directory of the file is a link."""
    (site.target / "web" / "deep").rename(site.target / "web" / "moved")
    (site.target / "web" / "deep").symlink_to(site.outside / "deep")


def link_the_first(site):
    """The directory above it is one."""
    (site.target / "web").rename(site.target / "moved")
    (site.target / "web").symlink_to(site.outside)


CALLS = {
    "entered": lambda file: file.parent.entered().__enter__(),
    "open_directory": lambda file: file.parent.open_directory(),
    "names": lambda file: file.parent.names(lambda _entry: True),
    "file_names": lambda file: file.parent.file_names(),
    "directory_names": lambda file: file.parent.directory_names(),
    "status": lambda file: file.status(),
    "statuses": lambda file: file.parent.statuses([file.name]),
    "exists": lambda file: file.exists(),
    "open_file": lambda file: file.open_file(),
    "open_file to write": lambda file: file.open_file(os.O_RDWR),
    "create": lambda file: (file.parent / "new").create(),
    "claim": lambda file: (file.parent / "new").claim(),
    "read": lambda file: file.read(100),
    "make_directory": lambda file: (file.parent / "new").make_directory(),
    "check_directory": lambda file: file.parent.check_directory(),
    "unlink": lambda file: file.unlink(),
    "drop": lambda file: file.drop(),
    "remove": lambda file: file.remove(),
    "rename": lambda file: file.rename("new"),
    "link": lambda file: file.link("new"),
    "rename_durably": lambda file: file.rename_durably("new"),
    "take_free_name": lambda file: file.take_free_name("new"),
    "rename_exclusively": lambda file: file.rename_exclusively("new"),
    "sync_names": lambda file: file.parent.sync_names(),
    "replace": lambda file: file.replace(b"new"),
    "replace, owner kept": lambda file: file.replace(b"new", file),
    "write_new": lambda file: (file.parent / "new").write_new(b"new"),
    "create_whole": lambda file: (file.parent / "new").create_whole(b"new"),
    "held": lambda file: Held([file.parent]),
}


@pytest.mark.parametrize("exchange", [link_the_last, link_the_first])
@pytest.mark.parametrize("call", CALLS)
def test_a_link_in_the_way_is_not_followed(site, call, exchange):
    before = site.seen_outside()
    exchange(site)
    with pytest.raises((OSError, StorageError), match="a symlink, not followed"):
        CALLS[call](site.file)
    assert site.seen_outside() == before


def test_who_is_stopped_by_a_link_is_told_what_to_do(site):
    link_the_first(site)
    with pytest.raises(StorageError) as caught:
        site.file.replace(b"new")
    assert caught.value.hint.startswith("Below a target no symlink is followed")


@pytest.mark.parametrize("call", CALLS)
def test_every_call_works_without_one(site, call):
    CALLS[call](site.file)


def test_every_method_has_its_call():
    own = {name for name in {*vars(TargetPath), *vars(ReachedPath)} if not name.startswith("_")}
    values = {
        "at",
        "real_path",
        "of",
        "in_domain",
        "path",
        "name",
        "parent",
        "temporary",
        "target",
        "steps",
    }
    assert own - values <= {call.partition(" ")[0].rstrip(",") for call in CALLS}


def test_the_target_itself_may_be_a_link(site, tmp_path):
    (tmp_path / "link").symlink_to(site.target)
    assert TargetPath.of(tmp_path / "link" / "web" / "deep" / "file", 3).read(10) == b"inside"


def a_link(path, site):
    path.symlink_to(site.outside / "file")


def a_dangling_link(path, _site):
    path.symlink_to("nowhere")


def a_link_to_itself(path, _site):
    path.symlink_to(path)


def a_pipe(path, _site):
    os.mkfifo(path)


def a_socket(path, _site):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def a_directory(path, _site):
    path.mkdir()


ODDITIES = [a_link, a_dangling_link, a_link_to_itself, a_pipe, a_socket, a_directory]


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_only_a_regular_file_is_opened(site, oddity, flags, monkeypatch):
    monkeypatch.chdir(site.target)
    path = site.target / "web" / "odd"
    oddity(path, site)
    before = site.seen_outside()
    with pytest.raises(OSError, match=r"symlink|regular|Is a directory"):
        TargetPath.of(path, 2).open_file(flags)
    with pytest.raises(StorageError):
        TargetPath.of(path, 2).create()
    assert site.seen_outside() == before
    assert (TargetPath(site.target) / "web").file_names() == []


@pytest.mark.parametrize("oddity", ODDITIES[:5])
def test_what_stands_in_the_place_of_a_file_is_removed_itself(site, oddity, monkeypatch):
    monkeypatch.chdir(site.target)
    path = site.target / "web" / "odd"
    oddity(path, site)
    before = site.seen_outside()
    TargetPath.of(path, 2).remove()
    assert not os.path.lexists(path)
    assert site.seen_outside() == before


@pytest.mark.parametrize("oddity", ODDITIES[:5])
def test_what_stands_in_the_place_of_a_file_is_replaced_itself(site, oddity, monkeypatch):
    monkeypatch.chdir(site.target)
    path = site.target / "web" / "odd"
    oddity(path, site)
    before = site.seen_outside()
    TargetPath.of(path, 2).replace(b"new")
    assert path.read_bytes() == b"new"
    assert not path.is_symlink()
    assert site.seen_outside() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_no_name_leaves_its_directory(site, name):
    with pytest.raises(StorageError, match="not a plain file name"):
        TargetPath(site.target) / name
    with pytest.raises(StorageError, match="not a plain file name"):
        site.file.rename(name)
    with pytest.raises(StorageError, match="not a plain file name"):
        site.file.link(name)


def test_only_links_to_the_target_are_resolved(site, tmp_path):
    (tmp_path / "link").symlink_to(site.target)
    loop = site.target / "web" / "loop"
    loop.symlink_to(loop)
    found = TargetPath.of(tmp_path / "link" / "web" / "loop", 2).real_path()
    assert found == site.target / "web" / "loop"


def test_a_path_is_taken_apart_and_put_together(site):
    path = site.target / "web" / "deep" / "file"
    assert TargetPath.of(path, 3) == site.file
    assert TargetPath.of(path, 3).path == path
    assert (site.file.name, site.file.parent) == ("file", site.deep)
    with pytest.raises(StorageError):
        TargetPath.of(Path("file"), 2)
    with pytest.raises(StorageError):
        TargetPath.of(site.target / ".." / "file", 2)


def test_what_is_made_is_private(site):
    os.close((site.deep / "new").create())
    (site.deep / "more").make_directory()
    modes = [stat.S_IMODE((site.deep / name).status().st_mode) for name in ("new", "more")]
    assert modes == [0o600, 0o700]


def test_a_name_that_is_taken_stays(site):
    with pytest.raises(StorageError, match="cannot create"):
        site.file.create()
    with pytest.raises(FileExistsError):
        site.file.claim()
    (site.deep / "other").write_new(b"other")
    with pytest.raises(FileExistsError):
        site.file.link("other")
    with pytest.raises(StorageError, match="cannot create"):
        site.file.rename_exclusively("other")
    (site.target / "web" / "deep").joinpath("other").chmod(0o640)
    (site.deep / "other").replace(b"newer", site.deep / "other")
    assert (site.deep / "other").read(10) == b"newer"
    assert stat.S_IMODE((site.deep / "other").status().st_mode) == 0o640


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(site):
    with pytest.raises(StorageError, match="cannot write"):
        (TargetPath(site.target) / "web" / "deep").replace(b"new")
    assert list((site.target / "web").iterdir()) == [site.target / "web" / "deep"]


@pytest.mark.parametrize("oddity", ODDITIES[:5])
def test_a_directory_that_is_something_else_is_not_made_do(site, oddity, monkeypatch):
    monkeypatch.chdir(site.target)
    path = site.target / "web" / "odd"
    oddity(path, site)
    with pytest.raises(StorageError, match=r"symlink|Not a directory"):
        TargetPath.of(path, 2).make_directory()


def test_a_name_is_taken_without_hard_links_too(site, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    site.file.rename_exclusively("new")
    assert (site.deep / "new").read(10) == b"inside"
    assert not site.file.exists()
    (site.deep / "file").write_new(b"again")
    with pytest.raises(StorageError, match="cannot create"):
        site.file.rename_exclusively("new")
    assert (site.deep / "new").read(10) == b"inside"


def test_what_is_missing_is_told_as_such(site):
    gone = site.deep / "gone"
    assert gone.read(10) is None
    assert not gone.exists()
    gone.remove()
    gone.drop()
    for call in (gone.unlink, gone.open_file, gone.status):
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(StorageError, match="cannot sync"):
        gone.sync_names()


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_no_descriptor_is_left(site):
    before = descriptors()
    for call in ("status", "read", "names", "replace", "sync_names", "remove"):
        CALLS[call](site.file)
    link_the_first(site)
    for call in CALLS.values():
        with pytest.raises((OSError, StorageError)):
            call(site.file)
    assert descriptors() == before


def move_away(site):
    (site.target / "web" / "deep").rename(site.target / "web" / "moved")


def put_another_there(site):
    move_away(site)
    (site.target / "web" / "deep").mkdir()


def put_another_above(site):
    (site.target / "web").rename(site.target / "moved")
    (site.target / "web" / "deep").mkdir(parents=True)


@pytest.mark.parametrize(
    "exchange", [move_away, put_another_there, put_another_above, link_the_last, link_the_first]
)
def test_an_exchange_is_noticed(site, exchange):
    held = Held([TargetPath(site.target), site.deep])
    try:
        held.check()
        exchange(site)
        with pytest.raises(StorageError, match="moved, or replaced"):
            held.check()
    finally:
        held.close()


def test_a_full_target_is_called_so(site, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(StorageError, match="no space left"):
        (site.deep / "new").make_directory()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_new_file_has_the_mode_that_was_asked_for(site, umask):
    before = os.umask(umask)
    try:
        for name, mode in (("a", 0o666), ("b", 0o644), ("c", 0o600)):
            os.close((site.deep / name).claim(mode=mode))
            assert stat.S_IMODE((site.deep / name).status().st_mode) == mode
    finally:
        os.umask(before)
    with pytest.raises(FileExistsError):
        (site.deep / "a").claim(mode=0o666)


def read(site, name, max_bytes=6):
    with site.deep.entered() as directory:
        return read_file_in(directory, name, site.deep.path, max_bytes)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_only_a_regular_file_is_read(site, make):
    make(site.deep.path / "other")
    with pytest.raises(UnfitFileError, match="not a regular file"):
        read(site, "other")


def test_a_file_is_read_up_to_the_longest(site):
    assert read(site, "file") == b"inside"
    with pytest.raises(UnfitFileError, match="larger than 5 B"):
        read(site, "file", 5)
    (site.deep.path / "empty").touch()
    assert read(site, "empty", 0) == b""


def test_a_link_is_not_read(site):
    (site.deep.path / "link").symlink_to(site.outside / "file")
    with pytest.raises(OSError, match="a symlink, not followed"):
        read(site, "link")
    with pytest.raises(FileNotFoundError):
        read(site, "none")
