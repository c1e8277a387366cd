"""The events that a run emits; each is one line of ``--json``.

The ``kind`` of a class is the ``event`` key of its line, its fields are the other keys. Fields may
be added, never renamed (docs/reference/json.md lists them). Import events from here; the modules
below only sort them by theme.
"""

from collections.abc import Callable
from typing import Final

from virtbackup_async.events.backup import (
    BackupDone,
    BackupFailed,
    BackupsExpected,
    BackupStarted,
    DiskDone,
    DiskProgress,
    DiskReading,
    DisksHeld,
    DiskSkipped,
    ExpectedBackup,
    ExpectedDisk,
    Phase,
    PhaseChanged,
)
from virtbackup_async.events.clean import (
    BackupRemoved,
    BackupsForgotten,
    ChangeAccepted,
    CleanStopped,
    CleanVerdict,
    LocksExtended,
    PendingFound,
    PendingLeft,
    PendingUndone,
    RemovalFailed,
    RemovalPlanned,
    RepositorySwept,
)
from virtbackup_async.events.copy import (
    CopyDone,
    CopyFailed,
    CopyPlanned,
    CopySkipped,
    CopyStarted,
)
from virtbackup_async.events.diff import DiskCompared
from virtbackup_async.events.inventory import (
    BackupStats,
    BrokenBackup,
    DayStats,
    DomainStats,
    GroupStats,
    ListedBackup,
    ListedDomain,
    PinChanged,
    ReportWritten,
    RepositoryStats,
    TargetAccepted,
    TargetUnreadable,
    UnclaimedBackups,
)
from virtbackup_async.events.preview import (
    DiskPlanned,
    TargetPlanned,
)
from virtbackup_async.events.requests import PastRequests, RequestCount, StoreRequests
from virtbackup_async.events.restore import (
    DiskExported,
    DomainDefined,
    FileFormat,
    RestoreDone,
    RestoreStarted,
)
from virtbackup_async.events.run import (
    Finding,
    HookEnded,
    HookFailed,
    HookStarted,
    Level,
    RunInfo,
    RunStarted,
    Summary,
    TargetSpace,
    Warned,
)
from virtbackup_async.events.serve import BackupServed, RangeUnreadable, ServedDisk
from virtbackup_async.events.setup import (
    AgentState,
    ConfigWritten,
    DomainFound,
    FileSystemFound,
)
from virtbackup_async.events.show import ShownBackup, ShownDisk, ShownImage, ShownLack
from virtbackup_async.events.status import (
    GuestHealth,
    HealthChecked,
    ListedRun,
    RunningNow,
    StatusGuest,
    StatusShown,
    StatusTarget,
    Timer,
)
from virtbackup_async.events.verify import (
    DiskDamaged,
    RepositoryChecked,
    RepositoryDamaged,
    RepositoryProgress,
    RepositoryRepaired,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
)

__all__ = [
    "OF_EACH_BACKUP",
    "AgentState",
    "BackupDone",
    "BackupFailed",
    "BackupRemoved",
    "BackupServed",
    "BackupStarted",
    "BackupStats",
    "BackupsExpected",
    "BackupsForgotten",
    "BrokenBackup",
    "ChangeAccepted",
    "CleanStopped",
    "CleanVerdict",
    "ConfigWritten",
    "CopyDone",
    "CopyFailed",
    "CopyPlanned",
    "CopySkipped",
    "CopyStarted",
    "DayStats",
    "DiskCompared",
    "DiskDamaged",
    "DiskDone",
    "DiskExported",
    "DiskPlanned",
    "DiskProgress",
    "DiskReading",
    "DiskSkipped",
    "DisksHeld",
    "DomainDefined",
    "DomainFound",
    "DomainStats",
    "Emit",
    "Event",
    "ExpectedBackup",
    "ExpectedDisk",
    "FileFormat",
    "FileSystemFound",
    "Finding",
    "GroupStats",
    "GuestHealth",
    "HealthChecked",
    "HookEnded",
    "HookFailed",
    "HookStarted",
    "Level",
    "ListedBackup",
    "ListedDomain",
    "ListedRun",
    "LocksExtended",
    "PastRequests",
    "PendingFound",
    "PendingLeft",
    "PendingUndone",
    "Phase",
    "PhaseChanged",
    "PinChanged",
    "RangeUnreadable",
    "RemovalFailed",
    "RemovalPlanned",
    "ReportWritten",
    "RepositoryChecked",
    "RepositoryDamaged",
    "RepositoryProgress",
    "RepositoryRepaired",
    "RepositoryStats",
    "RepositorySwept",
    "RequestCount",
    "RestoreDone",
    "RestoreStarted",
    "RunInfo",
    "RunStarted",
    "RunningNow",
    "ServedDisk",
    "ShownBackup",
    "ShownDisk",
    "ShownImage",
    "ShownLack",
    "StatusGuest",
    "StatusShown",
    "StatusTarget",
    "StoreRequests",
    "Summary",
    "TargetAccepted",
    "TargetPlanned",
    "TargetSpace",
    "TargetUnreadable",
    "Timer",
    "UnclaimedBackups",
    "VerifyDone",
    "VerifyFailed",
    "VerifyStarted",
    "Warned",
]

Event = (
    RunInfo
    | RunStarted
    | BackupsExpected
    | BackupStarted
    | DisksHeld
    | PhaseChanged
    | DiskProgress
    | DiskDone
    | DiskSkipped
    | Warned
    | BackupDone
    | BackupFailed
    | DiskPlanned
    | TargetPlanned
    | CopyPlanned
    | CopyStarted
    | CopyDone
    | CopySkipped
    | CopyFailed
    | RestoreStarted
    | RestoreDone
    | DiskExported
    | BackupServed
    | RangeUnreadable
    | DomainDefined
    | VerifyStarted
    | VerifyDone
    | VerifyFailed
    | DiskDamaged
    | RepositoryProgress
    | RepositoryDamaged
    | RepositoryChecked
    | RepositoryRepaired
    | StoreRequests
    | PastRequests
    | ListedBackup
    | ListedDomain
    | ShownBackup
    | HealthChecked
    | StatusShown
    | ListedRun
    | DiskCompared
    | BrokenBackup
    | TargetUnreadable
    | TargetSpace
    | UnclaimedBackups
    | DomainStats
    | GroupStats
    | DayStats
    | BackupStats
    | ReportWritten
    | RepositoryStats
    | HookStarted
    | HookEnded
    | HookFailed
    | Finding
    | DomainFound
    | FileSystemFound
    | ConfigWritten
    | CleanVerdict
    | CleanStopped
    | ChangeAccepted
    | BackupRemoved
    | BackupsForgotten
    | RemovalFailed
    | RemovalPlanned
    | RepositorySwept
    | LocksExtended
    | PendingFound
    | PendingUndone
    | PendingLeft
    | PinChanged
    | TargetAccepted
    | Summary
)

OF_EACH_BACKUP: Final = (ListedBackup, BackupStats, CleanVerdict)
"""What is emitted for each backup of a target, often thousands of times: it is for a report alone,
has no sentence, and changes nothing in the result of a run."""

Emit = Callable[[Event], None]
