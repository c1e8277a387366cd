"""A guard for each freeze: a small program that thaws the guest if this process cannot.

::

    start the guard ── ready? ── arm ── freeze ── … ── thaw ── release
                                  └─ whatever happens to this process, the guest is thawed ─┘

If this process is stopped (SIGSTOP), killed or out of memory between freeze and thaw, the guest
would stay frozen until somebody notices. The guard sees by the end of its stdin that the process is
gone, and after ``LIMIT_S`` that it does nothing. A freeze can take longer, so while the agent is
freezing, the process arms the guard again and again.

Nothing is trusted. If a guard cannot be started, does not find the domain, or is late, the guest is
not frozen: a backup that is only crash-consistent is better than a guest that hangs. A guard that
dies later only costs its protection; then the time alone says whether the guest was thawed too
early.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import anyio
import libvirt
from anyio import CancelScope

from virtbackup_async.concurrency import open_background
from virtbackup_async.errors import QuiesceError
from virtbackup_async.hypervisor import thaw_guard
from virtbackup_async.hypervisor.errors import MAX_TEXT
from virtbackup_async.processes import Companion, open_companion, python_program

LIMIT_S = 10
"""How long a guest stays frozen at most while this process does nothing."""

START_TIMEOUT_S = 5
BEAT_INTERVAL_S = 1
VERDICT_TIMEOUT_S = 2
END_TIMEOUT_S = 2
THAW_FOR_S = 60

Credentials = tuple[str | None, str | None]


class Freezable(Protocol):
    """A domain whose guest can be frozen."""

    name: str
    uuid: str

    async def freeze(self) -> None: ...


class FrozenGuests:
    """Counts the guests that this process holds frozen; it must not be stopped while any is."""

    def __init__(self) -> None:
        self._count = 0
        self._none = anyio.Event()

    def add(self) -> None:
        """Count one that is about to be frozen."""
        self._count += 1

    def remove(self) -> None:
        """Count one that is thawed."""
        self._count -= 1
        if not self._count:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return once none is frozen; no freeze begins before the caller's next ``await``."""
        while self._count:
            self._none = anyio.Event()
            await self._none.wait()


FROZEN = FrozenGuests()
"""Of the whole process, with all its connections: a signal stops all of it."""


class ThawGuard:
    """A guard that was started; see ``guarded``."""

    def __init__(self, domain: Freezable, companion: Companion) -> None:
        self._domain = domain
        self._companion = companion
        self._armed_s: float | None = None
        self._is_counted = False

    async def ready(self) -> None:
        """Wait until the guard is ready; call this before :meth:`freeze`.

        Raises:
            QuiesceError: the guard is late, or has ended.
        """
        heard = b""
        with anyio.move_on_after(START_TIMEOUT_S):
            heard = await self._companion.hear()
        if heard != b"ready\n":
            said = heard[:MAX_TEXT].decode(errors="replace").removeprefix("no ").strip()
            why = said or "it is late, or has ended"
            raise QuiesceError(f"no guard to thaw the guest: {why}", domain=self._domain.name)

    async def freeze(self) -> None:
        """Freeze the guest; until :meth:`release`, the guard thaws it if this process does not.

        Raises:
            QuiesceError: it did not freeze; thaw it, because a part of it can be frozen, and
                release.
        """
        self._is_counted = True
        self._companion.end_timeout_s = THAW_FOR_S + LIMIT_S
        FROZEN.add()
        await self._arm()
        async with open_background() as tasks:
            tasks.start_soon(self._beat, name=f"guard {self._domain.name}")
            await self._domain.freeze()
        await self._arm()

    async def release(self) -> bool:
        """Tell the guard that the guest is thawed; return whether it stayed frozen until then."""
        self.leave()
        self._companion.end_timeout_s = END_TIMEOUT_S
        if self._armed_s is None:
            return True
        in_time = anyio.current_time() - self._armed_s < LIMIT_S
        with CancelScope(shield=True), suppress(OSError, anyio.BrokenResourceError):
            with anyio.move_on_after(VERDICT_TIMEOUT_S):
                await self._companion.say(thaw_guard.RELEASE)
                self._armed_s = None
                verdict = await self._companion.hear()
                return verdict == b"kept\n" or (not verdict and in_time)
        return in_time

    def leave(self) -> None:
        """Count the guest as frozen no longer."""
        if self._is_counted:
            self._is_counted = False
            FROZEN.remove()

    async def _arm(self) -> None:
        try:
            await self._companion.say(thaw_guard.ARM)
        except (OSError, anyio.BrokenResourceError) as error:
            if self._armed_s is None:
                why = "no guard to thaw the guest: it has ended"
                raise QuiesceError(f"{why}", domain=self._domain.name) from error
        self._armed_s = anyio.current_time()

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(BEAT_INTERVAL_S)
            await self._arm()


@asynccontextmanager
async def guarded(
    domain: Freezable, uri: str | None, credentials: Credentials
) -> AsyncGenerator[ThawGuard]:
    """Start a guard for a domain's guest, without waiting for it; it ends with the block.

    If the guest is not released by then, the end of the block waits until the guard has thawed it.

    Raises:
        QuiesceError: the guard cannot be started.
    """
    username, passphrase = credentials
    request = {
        "uri": uri,
        "username": username,
        "passphrase": passphrase,
        "uuid": domain.uuid,
        "limit_s": LIMIT_S,
        "thaw_for_s": THAW_FOR_S,
    }
    argv = python_program(Path(thaw_guard.__file__), str(Path(libvirt.__file__).parent))
    async with AsyncExitStack() as stack:
        opening = open_companion(argv, end_timeout_s=END_TIMEOUT_S)
        try:
            companion = await stack.enter_async_context(opening)
        except OSError as error:
            reason = f"no guard to thaw the guest: {error.strerror}"
            raise QuiesceError(f"{reason}", domain=domain.name) from error
        with suppress(OSError, anyio.BrokenResourceError):
            await companion.say(json.dumps(request).encode() + b"\n")
        guard = ThawGuard(domain, companion)
        try:
            yield guard
        finally:
            guard.leave()
