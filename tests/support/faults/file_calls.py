"""Each call of the interpreter about a file, to see that the library can let it fail.

A process of its own, started with the library that fails (``failing_disk``)::

    python -m faults.file_calls DIRECTORY

Writes a line of JSON: what each call met, the error and the file.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from faults.failing_disk import FailingDisk, Fault


class Place(Struct, frozen=True):
    """What the calls are made on: a file, its descriptors, and its directory's."""

    root: Path
    file: Path
    link: Path
    fd: int
    root_fd: int

    @property
    def new(self) -> Path:
        return self.root / "new"


class Call(Struct, frozen=True):
    """A call, and the name of the file that it is about; the empty one is the directory."""

    run: Callable[[Place], object]
    at: str = "file"


CALLS: Final = {
    "open": Call(lambda p: os.open(p.file, os.O_RDONLY)),
    "open to write": Call(lambda p: os.open(p.file, os.O_RDWR)),
    "open in a directory": Call(lambda p: os.open("file", os.O_RDONLY, dir_fd=p.root_fd)),
    "create": Call(lambda p: os.open(p.new, os.O_WRONLY | os.O_CREAT), "new"),
    "io.open": Call(lambda p: open(p.file, "rb")),  # noqa: SIM115, PTH123 -- that one is meant
    "read": Call(lambda p: os.read(p.fd, 1)),
    "readv": Call(lambda p: os.readv(p.fd, [bytearray(1)])),
    "pread": Call(lambda p: os.pread(p.fd, 1, 0)),
    "preadv": Call(lambda p: os.preadv(p.fd, [bytearray(1)], 0)),
    "write": Call(lambda p: os.write(p.fd, b"1")),
    "writev": Call(lambda p: os.writev(p.fd, [b"1"])),
    "pwrite": Call(lambda p: os.pwrite(p.fd, b"1", 0)),
    "pwritev": Call(lambda p: os.pwritev(p.fd, [b"1"], 0)),
    "sendfile": Call(lambda p: os.sendfile(p.fd, p.fd, 0, 1)),
    "copy_file_range": Call(lambda p: os.copy_file_range(p.fd, p.fd, 1, 0, 2)),
    "lseek": Call(lambda p: os.lseek(p.fd, 0, os.SEEK_HOLE)),
    "fsync": Call(lambda p: os.fsync(p.fd)),
    "fdatasync": Call(lambda p: os.fdatasync(p.fd)),
    "ftruncate": Call(lambda p: os.ftruncate(p.fd, 1)),
    "truncate": Call(lambda p: os.truncate(p.file, 1)),
    "posix_fallocate": Call(lambda p: os.posix_fallocate(p.fd, 0, 1)),
    "close": Call(lambda p: os.close(p.fd)),
    "stat": Call(lambda p: p.file.stat()),
    "lstat": Call(lambda p: p.file.lstat()),
    "fstat": Call(lambda p: os.fstat(p.fd)),
    "stat in a directory": Call(lambda p: os.stat("file", dir_fd=p.root_fd)),
    "statvfs": Call(lambda p: os.statvfs(p.file)),
    "fstatvfs": Call(lambda p: os.fstatvfs(p.fd)),
    "readlink": Call(lambda p: p.link.readlink(), "link"),
    "listdir": Call(lambda p: os.listdir(p.root), ""),  # noqa: PTH208 -- that one is meant
    "scandir": Call(lambda p: list(os.scandir(p.root)), ""),
    "scandir of a descriptor": Call(lambda p: list(os.scandir(p.root_fd)), ""),
    "mkdir": Call(lambda p: p.new.mkdir(), "new"),
    "mkdir in a directory": Call(lambda p: os.mkdir("new", dir_fd=p.root_fd), "new"),
    "rmdir": Call(lambda p: (p.root / "empty").rmdir(), "empty"),
    "unlink": Call(lambda p: p.file.unlink()),
    "unlink in a directory": Call(lambda p: os.unlink("file", dir_fd=p.root_fd)),
    "rename": Call(lambda p: p.file.rename(p.new), "new"),
    "rename in a directory": Call(
        lambda p: os.rename("file", "new", src_dir_fd=p.root_fd, dst_dir_fd=p.root_fd), "new"
    ),
    "replace": Call(lambda p: p.file.replace(p.new), "new"),
    "link": Call(lambda p: os.link(p.file, p.new), "new"),
    "link in a directory": Call(
        lambda p: os.link("file", "new", src_dir_fd=p.root_fd, dst_dir_fd=p.root_fd), "new"
    ),
    "symlink": Call(lambda p: p.new.symlink_to("x"), "new"),
    "symlink in a directory": Call(lambda p: os.symlink("x", "new", dir_fd=p.root_fd), "new"),
    "mkfifo": Call(lambda p: os.mkfifo(p.new), "new"),
    "chmod": Call(lambda p: p.file.chmod(0o600)),
    "fchmod": Call(lambda p: os.fchmod(p.fd, 0o600)),
    "chmod in a directory": Call(lambda p: os.chmod("file", 0o600, dir_fd=p.root_fd)),
    "chown": Call(lambda p: os.chown(p.file, -1, -1)),
    "lchown": Call(lambda p: os.lchown(p.file, -1, -1)),
    "fchown": Call(lambda p: os.fchown(p.fd, -1, -1)),
    "chown in a directory": Call(lambda p: os.chown("file", -1, -1, dir_fd=p.root_fd)),
    "utime": Call(lambda p: os.utime(p.file, (1, 1))),
    "utime of a descriptor": Call(lambda p: os.utime(p.fd, (1, 1))),
    "getxattr": Call(lambda p: os.getxattr(p.file, "user.a")),
    "setxattr": Call(lambda p: os.setxattr(p.file, "user.a", b"1")),
}


def met(root: Path, call: Call) -> str:
    """Make a call whose first operation fails, and tell the error and the file."""
    (root / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"1")
    (root / "link").symlink_to("file")
    fds = os.open(root / "file", os.O_RDWR), os.open(root, os.O_RDONLY)
    disk = FailingDisk(root)
    disk.set(Fault("EIO", 0, from_then=False))
    disk.arm()
    try:
        call.run(Place(root, root / "file", root / "link", *fds))
        error = "nothing"
    except OSError as reason:
        error = errno.errorcode[reason.errno or 0]
    finally:
        disk.arm(armed=False)
    _, _, path = (disk.failed or "").partition(" ")
    return f"{error} {path.removeprefix(str(root)).removeprefix('/')}"


if __name__ == "__main__":
    places = {name: Path(sys.argv[1]) / str(n) for n, name in enumerate(CALLS)}
    told = {name: met(places[name], call) for name, call in CALLS.items()}
    sys.stdout.write(json.dumps(told) + "\n")
