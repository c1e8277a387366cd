"""Ctrl-Z stops the process, as it does any other, but not while a guest is frozen.

::

    SIGTSTP ──> no guest frozen? ──> restore the terminal ──> SIGSTOP ... SIGCONT ──> resume

The wait is short, because a guest is frozen only for moments. A second SIGTSTP meanwhile changes
nothing, and a SIGTERM works as always. There is no await between the last check and the stop, so no
freeze can begin there. SIGSTOP cannot be caught: against that, each freeze has its guard.
"""

import os
import signal
from time import monotonic

from anyio.abc import TaskGroup
from msgspec import Struct

from virtbackup_async.events import Warned
from virtbackup_async.model.amounts import duration
from virtbackup_async.reporting.event_thread import EventThread
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.sentences import some_of

# A reader that never reads must not keep the process from stopping.
_LET_GO_S = 1.0


class Stopper(Struct):
    """Stops the process on demand; a task in ``tasks`` waits for the guests."""

    run_outcome: RunOutcome
    event_thread: EventThread
    tasks: TaskGroup
    is_waiting: bool = False

    def stop(self) -> None:
        """Stop as soon as no guest is frozen; returns at once."""
        if not self.is_waiting:
            self.is_waiting = True
            self.tasks.start_soon(self._stop, name="stop")

    async def _stop(self) -> None:
        # A command that uses libvirt has loaded this by now; the others start without it.
        from virtbackup_async.hypervisor.guard import FROZEN  # noqa: PLC0415 -- see above

        await FROZEN.wait_for_none()
        self.is_waiting = False
        at_work = tuple(self.run_outcome.in_flight)
        if at_work:
            message = "stopped: overlays or scratch images grow until it continues"
            self.run_outcome.emit(Warned(f"{message}: {some_of(at_work)}"))
        self.event_thread.pause(_LET_GO_S)
        stopped_s = monotonic()
        # Not SIGTSTP: the kernel ignores it in a process group without a shell above it.
        os.kill(os.getpid(), signal.SIGSTOP)
        self.event_thread.resume()
        if at_work:
            message = f"continued after {duration(monotonic() - stopped_s)}"
            self.run_outcome.emit(Warned(f"{message}: {some_of(at_work)}"))
