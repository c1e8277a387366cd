"""The names that programs may rely on, written down once more: none goes or changes by accident."""

import inspect
import subprocess
import sys

import pytest

import virtbackup_async
from virtbackup_async import VirtBackup, errors, events
from virtbackup_async.cli.main import virtbackup

NAMES = [
    "BackupPreview", "BackupRun", "CleanRun", "Config", "CopyRun", "Definition", "ForgetRun",
    "FoundBackup", "Listing", "Passphrase", "RecoveryKey", "RepairRun", "RestoredDomain", "Stats",
    "VerifyRun", "VirtBackup", "VirtBackupError", "__version__", "load_config", "open_virtbackup",
]  # fmt: skip

METHODS = {
    "accept": ["words", "dry_run"],
    "backup": ["groups", "wait_s", "allow_empty", "note", "pin", "estimate"],
    "check": ["words", "max_age"],
    "clean": ["groups", "broken", "complete", "dry_run", "drop_damaged", "wait_s", "accepted"],
    "copy": [
        "target", "backups", "groups", "packager", "latest", "since", "new", "wait_s", "dry_run",
    ],
    "diff": ["older", "newer", "group"],
    "doctor": ["groups", "freeze"],
    "export": ["found", "disk", "output", "image_format"],
    "serve": ["found", "disks", "socket", "tcp", "tls", "overlay"],
    "find": ["group", "domain", "date", "disks", "trusted"],
    "forget": ["backups", "group", "unpin", "allow_newest", "dry_run", "wait_s"],
    "log": ["limit"],
    "list": ["groups", "domains", "with_known", "since", "latest"],
    "overview": [],
    "pin": ["group", "domain", "date"],
    "preview": ["groups", "allow_empty"],
    "repair": ["groups", "quick"],
    "report": ["html", "mode"],
    "restore": ["found", "target", "disks", "image_format"],
    "restore_domain": [
        "found", "target", "disks", "name", "start", "allow_missing", "image_format",
    ],
    "restore_in_place": [
        "found", "disks", "discard_old", "remove_managed_save", "allow_missing",
    ],
    "show": ["group", "domain", "date"],
    "status": [],
    "stats": ["groups", "each_backup"],
    "unpin": ["group", "domain", "date"],
    "verify": ["groups", "domains", "newer_than", "not_verified_since", "sample", "quick",
               "read_data"],
    "verify_without_key": ["groups"],
}  # fmt: skip

RESULTS = {
    "BackupPreview": ["disks", "targets", "failed"],
    "BackupRun": ["done", "failed", "copied", "not_copied"],
    "CleanRun": ["verdicts", "removed", "not_removed", "undone", "left", "swept", "stopped"],
    "CopyRun": ["done", "skipped", "failed", "planned"],
    "ForgetRun": ["verdicts", "removed", "not_removed", "freed_bytes"],
    "FoundBackup": ["definition", "path"],
    "Listing": ["backups", "without_backup", "broken"],
    "RepairRun": ["repositories", "good", "damaged"],
    "RestoredDomain": ["files", "domain"],
    "Stats": ["groups", "domains", "days", "backups", "repositories", "requests"],
    "VerifyRun": ["good", "damaged", "repositories"],
}


def test_the_package_exports_these_names_and_has_each_of_them():
    assert sorted(virtbackup_async.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(virtbackup_async, name) is not None
        assert name in dir(virtbackup_async)
    with pytest.raises(AttributeError, match="no attribute 'open_virtbakup'"):
        _ = virtbackup_async.open_virtbakup


def is_command(method):
    """Whether it is awaited, or opened by ``async with``."""
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(inspect.unwrap(method))


def test_each_method_has_its_parameters_and_says_what_they_mean():
    methods = {
        name: method
        for name, method in inspect.getmembers(VirtBackup)
        if not name.startswith("_") and is_command(method)
    }
    parameters = {
        name: list(inspect.signature(method).parameters)[1:] for name, method in methods.items()
    }
    assert parameters == METHODS
    for name, method in methods.items():
        as_for = "as for :meth:" in (method.__doc__ or "")
        for parameter in METHODS[name]:
            assert as_for or f"{parameter}:" in method.__doc__, (name, parameter)


def test_each_command_that_works_on_backups_is_a_method():
    # What people set up at a terminal: keys are typed and printed.
    others = {"init", "systemd", "config", "key", "completion", "help", "store-server"}
    commands = set(virtbackup.list_commands(None)) - others
    assert commands <= set(METHODS)


@pytest.mark.parametrize("name", RESULTS)
def test_each_result_has_its_fields(name):
    assert list(getattr(virtbackup_async, name).__struct_fields__) == RESULTS[name]


def test_every_event_and_error_is_exported_by_its_module():
    assert {"Emit", "Event", "Level", "Phase"} < set(events.__all__)
    assert {kind.__name__ for kind in events.Event.__args__} < set(events.__all__)
    own = [value for value in vars(errors).values() if inspect.isclass(value)]
    own = [kind for kind in own if kind.__module__ == errors.__name__]
    assert len(own) > 20
    assert all(issubclass(kind, errors.VirtBackupError) for kind in own)


PROGRAM = """
import sys
import virtbackup_async
assert [name for name in sys.modules if name.startswith("virtbackup_async.")] == [
    "virtbackup_async.version"
]
virtbackup_async.open_virtbackup
heavy = ["libvirt", "lxml", "numpy", "zstandard", "rich", "click", "virtbackup_async.cli"]
print([name for name in heavy if name in sys.modules])
"""


def test_nothing_is_loaded_before_it_is_needed():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
