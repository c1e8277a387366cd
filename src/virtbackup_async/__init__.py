"""Concurrent backup and restore of libvirt/KVM virtual machines.

``open_virtbackup`` gives every command as a method (docs/how-to/library.md); ``virtbackup`` is the
same on the command line. The names of ``__all__`` are public, and so are the modules ``events`` and
``errors``: what they export is added to, never renamed or removed. All else may change.

The folders are layers: a layer imports only what stands below it. ``pyproject.toml`` has the list,
and the import linter enforces it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from virtbackup_async.version import __version__

if TYPE_CHECKING:
    from virtbackup_async.api.keys import Passphrase, RecoveryKey
    from virtbackup_async.api.virtbackup import VirtBackup, open_virtbackup
    from virtbackup_async.catalog.scanning import FoundBackup
    from virtbackup_async.config.loading import load_config
    from virtbackup_async.config.schema import Config
    from virtbackup_async.engine.backup.preview import BackupPreview
    from virtbackup_async.engine.backup.session import BackupRun
    from virtbackup_async.engine.clean.clean import CleanRun
    from virtbackup_async.engine.clean.forget import ForgetRun
    from virtbackup_async.engine.copy.session import CopyRun
    from virtbackup_async.engine.inventory.listing import Listing
    from virtbackup_async.engine.inventory.stats import Stats
    from virtbackup_async.engine.restore.define import RestoredDomain
    from virtbackup_async.engine.verify.repair import RepairRun
    from virtbackup_async.engine.verify.verify import VerifyRun
    from virtbackup_async.errors import VirtBackupError
    from virtbackup_async.model.backup import Definition

__all__ = [
    "BackupPreview",
    "BackupRun",
    "CleanRun",
    "Config",
    "CopyRun",
    "Definition",
    "ForgetRun",
    "FoundBackup",
    "Listing",
    "Passphrase",
    "RecoveryKey",
    "RepairRun",
    "RestoredDomain",
    "Stats",
    "VerifyRun",
    "VirtBackup",
    "VirtBackupError",
    "__version__",
    "load_config",
    "open_virtbackup",
]

# Imported when they are asked for: `virtbackup --help` starts without any of them.
_HOMES = {
    "BackupPreview": "engine.backup.preview",
    "BackupRun": "engine.backup.session",
    "CleanRun": "engine.clean.clean",
    "Config": "config.schema",
    "CopyRun": "engine.copy.session",
    "Definition": "model.backup",
    "ForgetRun": "engine.clean.forget",
    "FoundBackup": "catalog.scanning",
    "Listing": "engine.inventory.listing",
    "Passphrase": "api.keys",
    "RecoveryKey": "api.keys",
    "RepairRun": "engine.verify.repair",
    "RestoredDomain": "engine.restore.define",
    "Stats": "engine.inventory.stats",
    "VerifyRun": "engine.verify.verify",
    "VirtBackup": "api.virtbackup",
    "VirtBackupError": "errors",
    "load_config": "config.loading",
    "open_virtbackup": "api.virtbackup",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
