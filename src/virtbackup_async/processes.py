"""Programs that run beside this one: started, fed, listened to, ended. Nothing else starts any.

``images`` runs ``qemu-img`` through it, ``engine`` the admin's hooks. Invariant: when a call has
returned or raised, the program has ended; where it was killed, its children were killed as well.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE  # noqa: TID251 -- processes start through anyio

import anyio
from anyio.abc import ByteReceiveStream, Process
from msgspec import Struct

KEEP_BYTES = 64 * 1024 * 1024


class Ended(Struct, frozen=True):
    """How a program ended, and what it wrote: the first ``keep_bytes`` of each stream."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def last_words(self) -> str:
        """The last line on stderr, or else the exit code."""
        said = self.stderr.decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {self.returncode}"


async def run_program(
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> Ended:
    """Run a program to its end; a cancellation kills it, and what it started.

    Args:
        argv: the program and its arguments; no shell looks at them.
        stdin: what it reads; None: nothing.
        environment: all of its environment; None: ours.
        keep_bytes: how much of each output stream is kept; the rest is read and dropped.

    Raises:
        OSError: it cannot be started.
    """
    with anyio.CancelScope(shield=True):
        # Cancelled half-way, it would run already and nobody would know it. A session of its own:
        # Ctrl-C is for us to hear, and the whole of it can be killed.
        process = await anyio.open_process(
            argv,
            stdin=DEVNULL if stdin is None else PIPE,
            env=environment,
            start_new_session=True,
        )
    async with process:
        try:
            return await _talk(process, stdin, keep_bytes)
        finally:
            # A process that was waited for has given its number back: it may be another's now.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


async def _talk(process: Process, stdin: bytes | None, keep_bytes: int) -> Ended:
    kept: dict[str, bytes] = {}

    async def listen(name: str, stream: ByteReceiveStream | None) -> None:
        kept[name] = b"" if stream is None else await _read(stream, keep_bytes)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen, "stdout", process.stdout, name="read stdout")
        tasks.start_soon(listen, "stderr", process.stderr, name="read stderr")
        if process.stdin is not None:
            # A program that does not care for its input may end without reading it.
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await process.stdin.send(stdin or b"")
            await process.stdin.aclose()
        await process.wait()
    return Ended(await process.wait(), kept["stdout"], kept["stderr"])


async def _read(stream: ByteReceiveStream, keep_bytes: int) -> bytes:
    kept = bytearray()
    async for chunk in stream:
        kept += chunk[: keep_bytes - len(kept)]
    return bytes(kept)
