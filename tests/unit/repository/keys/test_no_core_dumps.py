"""storage/no_core_dumps.py: a process that has seen a key writes no core dump when it crashes."""

import os
import resource
import subprocess
import sys

import pytest

from virtbackup_async.repository.storage.key_file import make_key_file

# Each child allows core dumps, gets a key in one of the ways that there are, and crashes.
CRASH = """
import os, resource, sys
from pathlib import Path
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
path = Path(sys.argv[1])
{deed}
{then}
"""
ABORT = "os.abort()"
MAKE = "from virtbackup_async.repository.storage.key_file import make_key_file as call"
READ = "from virtbackup_async.repository.storage.key_file import read_key_file as call"
FACE = "from virtbackup_async.repository import {} as call"
WAYS = {
    "a key file is made": f"{MAKE}; call(path / 'new')",
    "a key file is read": f"{READ}; call(path / 'key')",
    "a key file is opened with": f"{FACE.format('key_of_file')}; call(path / 'key')",
    "a passphrase is typed": f"{FACE.format('key_of_passphrase')}; call('long enough')",
    "a recovery key is typed": f"{FACE.format('key_of_paper')}; call(sys.argv[2])",
    "a recovery key is made": f"{FACE.format('new_paper')}; call(path / 'public')",
}


def child(tmp_path, deed, then=ABORT):
    make_key_file(tmp_path / "key")
    paper = "MRSW-MZ3I-NFVG-W3DN-NZXX-A4LS-ON2H-K5TX-PB4X-U634-PV7H-7AEB-QKBY-CYHO"
    argv = [sys.executable, "-c", CRASH.format(deed=deed, then=then), str(tmp_path), paper]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status = os.waitpid(process.pid, 0)  # subprocess does not say whether there is a core
        process.returncode = 0
    return said, status


ASKED = (
    "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "
    "resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)"
)


@pytest.mark.parametrize("way", WAYS)
def test_a_process_with_a_key_leaves_no_core(tmp_path, way):
    """Where the host allows no core dumps anyway, only what the kernel says could fail."""
    said, status = child(tmp_path, WAYS[way], f"{ASKED}; {ABORT}")
    assert os.WIFSIGNALED(status), status
    assert not os.WCOREDUMP(status)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("core")]
    assert said == "0 0\n"


def test_without_a_key_nothing_changes(tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    said, _ = child(tmp_path, "import virtbackup_async.repository", ASKED)
    assert said == f"1 {hard}\n"


def test_a_program_that_is_started_later_writes_none_and_is_dumpable(tmp_path):
    asked = f"import resource; {ASKED}"
    then = f"import subprocess; subprocess.run([sys.executable, '-c', {asked!r}], check=True)"
    said, _ = child(tmp_path, WAYS["a passphrase is typed"], then)
    assert said == "1 0\n"


def test_a_user_that_is_not_root_reads_of_itself_what_it_needs(tmp_path):
    way = WAYS["a passphrase is typed"]
    imported, _, called = way.partition("; ")
    # Not root, and dumpable again, as after a login.
    deed = (
        f"import ctypes; {imported}; os.setuid(65534) if os.getuid() == 0 else None; "
        f"ctypes.CDLL(None).prctl(4, 1, 0, 0, 0); {called}"
    )
    then = (
        "own = os.memfd_create('own'); fd = os.open(f'/proc/self/fd/{own}', os.O_WRONLY); "
        "found = os.stat('/proc/self/ns/net').st_ino, open('/proc/self/mountinfo').read(1); "
        f"print('good' if all(found) else found); {ASKED}"
    )
    said, status = child(tmp_path, deed, then)
    assert (said, status) == ("good\n0 0\n", 0)
