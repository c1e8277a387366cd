"""The engine opens no file of the machine that has the images: ``host`` does."""

import ast
from pathlib import Path

import virtbackup_async

ENGINE = Path(virtbackup_async.__file__).parent / "engine"

# The files that these modules open are on the machine that the program runs on.
TARGET = "a target's files"
NOTES = "this program's notes"
OUTPUT = "what this program restores or exports here"
# A folder that sets up the machine that the program runs on.
OWN_FOLDER = "setup/"
OWN_FILES = {
    "backup/domain.py": TARGET,
    "backup/preview.py": TARGET,
    "backup/session.py": "the free space of targets",
    "backup/definition.py": TARGET,
    "backup/state.py": TARGET,
    "clean/object_lock.py": NOTES,
    "clean/pending.py": NOTES,
    "clean/plan.py": TARGET,
    "clean/broken.py": TARGET,
    "clean/protection.py": TARGET,
    "clean/stray_files.py": TARGET,
    "copy/backup.py": TARGET,
    "copy/destination.py": TARGET,
    "doctor/leftovers.py": TARGET,
    "doctor/append_only.py": TARGET,
    "doctor/target.py": TARGET,
    "host_state.py": NOTES,
    "inventory/listing.py": "the free space of targets",
    "inventory/occupied.py": TARGET,
    "inventory/past_runs.py": "whether targets are there",
    "inventory/unclaimed.py": TARGET,
    "locks.py": TARGET,
    "reading.py": TARGET,
    "restore/export.py": OUTPUT,
    "restore/export_target.py": OUTPUT,
    "restore/files.py": OUTPUT,
    "restore/temporary.py": OUTPUT,
    "serve/address.py": "the sockets that this program makes here",
    "serve/overlay_file.py": "the overlays that this program makes here",
    "serve/disks.py": "images that are unpacked here",
    "survey/survey.py": "the free space of targets, and this machine's name",
    "undo/evidence.py": "processes that write into targets",
    "undo/pending.py": TARGET,
    "verify/verify.py": TARGET,
}

METHODS = frozenset(
    {
        "chmod", "exists", "expanduser", "glob", "hardlink_to", "is_dir", "is_file", "is_mount",
        "is_socket", "is_symlink", "iterdir", "lchmod", "lexists", "link_to", "lstat", "mkdir",
        "open", "read_bytes", "read_text", "readlink", "rename", "resolve", "rglob", "rmdir",
        "samefile", "stat", "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text",
    }
)  # fmt: skip
MODULES = frozenset(
    {"fcntl", "glob", "io", "mmap", "os", "pwd", "shutil", "socket", "subprocess", "tempfile"}
)
NO_FILES = frozenset(
    {
        "os.cpu_count", "os.environ", "os.fsencode", "os.geteuid", "os.getpid",
        "os.path.commonpath", "os.waitstatus_to_exitcode",
    }
)  # fmt: skip
OPENERS = (
    "virtbackup_async.files.", "virtbackup_async.qemu.qemu_",
    "virtbackup_async.images.sources.file",
    "virtbackup_async.images.chains", "virtbackup_async.host.state_files",
    "virtbackup_async.host.replacement", "virtbackup_async.host.signs",
)  # fmt: skip


def test_only_modules_with_files_of_this_machine_open_files():
    found = {
        module: calls
        for path in sorted(ENGINE.rglob("*.py"))
        if (module := str(path.relative_to(ENGINE))) not in OWN_FILES
        and not module.startswith(OWN_FOLDER)
        and (calls := [*file_calls(ast.parse(path.read_text()))])
    }
    assert found == {}, "ask the host, see host/interface.py"


def test_every_exception_is_needed():
    idle = [name for name in OWN_FILES if not [*file_calls(ast.parse((ENGINE / name).read_text()))]]
    assert idle == []


def test_a_call_is_found():
    program = """
import os, shutil
from virtbackup_async.files.durable import remove_durably
from virtbackup_async.host.interface import ImageHost
os.getpid()
os.path.commonpath(paths)
await images.exists(path)
await work.host.images.is_file(path)
disk.path.stat()
open("/dev/vda")
run_sync(os.lstat, path)
run_sync(path.resolve)
"""
    found = [line for line, _ in file_calls(ast.parse(program))]
    assert found == [2, 3, 9, 10, 11, 12]


def file_calls(tree):
    """Yield the line and text of all that may open or inspect a file."""
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Import):
            if any(name.name in MODULES - {"os"} for name in node.names):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").startswith(OPENERS) or node.module in MODULES:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id == "open":
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and _opens(node):
            yield node.lineno, ast.unparse(node)


def _opens(node):
    text = ast.unparse(node)
    if text.startswith("os."):
        return text not in NO_FILES and not any(name.startswith(f"{text}.") for name in NO_FILES)
    receiver = ast.unparse(node.value)
    return node.attr in METHODS and not receiver.endswith(("images", "reading"))
