"""The runs of the histories as events. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from virtbackup_async.events import ListedRun
from virtbackup_async.model.run_record import Outcome, RunRecord

_FAILED = (Outcome.FAILED, Outcome.DAMAGED, Outcome.NOT_COPIED)


def listed_run(run: RunRecord) -> ListedRun:
    """Return a run as ``log`` lists it."""
    failed = [one.domain for one in run.domains if one.outcome in _FAILED]
    done = [one.domain for one in run.domains if one.outcome not in _FAILED]
    return ListedRun(
        run=run.run_id,
        command=run.command,
        host=run.host,
        version=run.version,
        start=datetime.fromtimestamp(run.start, UTC).astimezone().isoformat(timespec="seconds"),
        start_unix=run.start,
        duration_s=max(0.0, run.end - run.start),
        exit_code=run.exit_code,
        error=run.error,
        done=tuple(dict.fromkeys(done)),
        failed=tuple(dict.fromkeys(failed)),
        removed=run.removed,
        read_bytes=sum(one.read_bytes for one in run.domains),
        stored_bytes=sum(one.stored_bytes for one in run.domains),
    )


def last_of_each(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the last run of each command, the newest first."""
    last = {run.command: run for run in runs}
    return sorted(last.values(), key=lambda run: run.start, reverse=True)
