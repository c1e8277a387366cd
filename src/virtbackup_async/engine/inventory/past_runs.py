"""The runs in the histories of a configuration's targets."""

from virtbackup_async.catalog.history import read_history
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Warned
from virtbackup_async.files.mounts import space_of
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.run_record import RunRecord


async def read_past_runs(runtime: Runtime) -> tuple[list[RunRecord], list[StorageError]]:
    """Return the records of all targets, and the errors of unreadable histories.

    A run has a record in each of its targets.

    Raises:
        ConfigError: no group has a target.
    """
    runs: list[RunRecord] = []
    failures: list[StorageError] = []
    for target in dict.fromkeys(map(target_of, groups_with_target(runtime.config, ()))):
        try:
            await space_of(target)
            history = await read_history(target)
        except OSError as error:
            failures.append(storage_error("read", str(target), error))
            continue
        except StorageError as error:
            failures.append(error)
            continue
        runs += history.runs
        if history.damaged:
            message = f"{target}: {history.damaged} lines of the history cannot be read"
            runtime.emit(Warned(message))
    return runs, failures
