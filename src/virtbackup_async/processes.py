"""Starts other programs; no other module does.

``images`` runs ``qemu-img`` through it, ``engine`` the admin's hooks, ``hypervisor`` the guard of a
frozen guest. Invariant: when a call or a block has ended, the program itself has ended. Where it
was killed, its process group was killed as well. What it left running when it ended by itself runs
on, and nobody waits for it, though it may hold the streams of the program that started it.
"""

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from subprocess import (  # noqa: TID251 -- processes start through anyio, or ``PipedProgram``
    DEVNULL,
    PIPE,
    Popen,
    TimeoutExpired,
)
from threading import Thread
from typing import IO

import anyio
from anyio import current_time
from anyio.abc import Process
from msgspec import Struct

KEEP_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
# More than a pipe holds: one read takes all that is there.
_READ_BYTES = 1024 * 1024
# How long a program that has ended is still listened to, if others hold its streams.
_LINGER_S = 1.0


class Ended(Struct, frozen=True):
    """How a program ended, and what it wrote: the first ``keep_bytes`` of each stream.

    Attributes:
        left_running: something that it started goes on, and holds one of its streams.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    left_running: bool = False

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
    """Run a program to its end; a cancellation kills it, and its process group.

    Args:
        argv: the program and its arguments; no shell looks at them.
        stdin: what it reads; None: nothing.
        environment: all of its environment; None: ours.
        keep_bytes: how much of each output stream is kept; the rest is read and dropped.

    Raises:
        OSError: it cannot be started.
    """
    # Pipes of our own: those of asyncio are waited for as long as anybody holds them.
    with ExitStack() as ends:
        output, errors = _Output(keep_bytes, ends), _Output(keep_bytes, ends)
        feed = _Input(stdin or b"", ends)
        with anyio.CancelScope(shield=True):
            # Cancelled half-way, it would run already and nobody would know it. A session of its
            # own: Ctrl-C is for us to hear, and the whole of it can be killed.
            process = await anyio.open_process(
                argv,
                stdin=feed.theirs,
                stdout=output.theirs,
                stderr=errors.theirs,
                env=environment,
                start_new_session=True,
            )
        try:
            for end in (feed, output, errors):
                end.close_theirs()
            is_left = await _talk(process, feed, output, errors)
            return Ended(await process.wait(), bytes(output.kept), bytes(errors.kept), is_left)
        finally:
            await _kill(process)


async def _kill(process: Process) -> None:
    """End it, unless it has ended; a process that was waited for has given its number back."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()


class Companion:
    """A program that runs beside us for a while, spoken to by its stdin and stdout.

    Attributes:
        end_timeout_s: how long its end is waited for, when the block ends, before it is killed.
    """

    def __init__(self, process: Process, end_timeout_s: float) -> None:
        self.pid = process.pid
        self.end_timeout_s = end_timeout_s
        self._process = process
        self._heard = b""

    async def say(self, words: bytes) -> None:
        """Write to its stdin.

        Raises:
            BrokenResourceError: it has ended.
        """
        if self._process.stdin is not None:
            await self._process.stdin.send(words)

    async def hear(self) -> bytes:
        """Return its next line; what there was of one, or nothing, where it has ended."""
        try:
            while b"\n" not in self._heard and self._process.stdout is not None:
                self._heard += await self._process.stdout.receive(MAX_LINE_BYTES)
                if len(self._heard) > MAX_LINE_BYTES:
                    break
        except anyio.EndOfStream:
            pass
        line, end, self._heard = self._heard.partition(b"\n")
        return line + end

    async def end(self) -> None:
        """Close its stdin, by which it knows, and wait for its end; kill it where it does not."""
        if self._process.stdin is not None:
            with suppress(OSError, anyio.BrokenResourceError):
                await self._process.stdin.aclose()
        with anyio.move_on_after(self.end_timeout_s):
            await self._process.wait()


@asynccontextmanager
async def open_companion(argv: Sequence[str], *, end_timeout_s: float) -> AsyncGenerator[Companion]:
    """Start a program that ends when its stdin does.

    It has a session of its own: no signal of our terminal reaches it.

    Args:
        argv: the program and its arguments.
        end_timeout_s: as the attribute, which may be changed meanwhile.

    Raises:
        OSError: it cannot be started.
    """
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
    companion = Companion(process, end_timeout_s)
    try:
        yield companion
    finally:
        with anyio.CancelScope(shield=True):
            await companion.end()
            await _kill(process)
            await process.aclose()


class PipedProgram:
    """A program that threads speak to by two pipes; nothing here knows of an event loop.

    Attributes:
        pid: its number.
        stdin: the descriptor to write to it; the caller closes it.
        stdout: the descriptor to read from it; the caller closes it.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        """Start it, in a session of its own: no signal of our terminal reaches it.

        Raises:
            OSError: it cannot be started.
        """
        self._process = Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        self.pid = self._process.pid
        self.stdin, self.stdout = _detached(self._process.stdin), _detached(self._process.stdout)
        self._stderr = b""
        self._reader = Thread(target=self._read_errors, name="stderr", daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kill it, and its process group."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> Ended:
        """Return how it ended; it is killed if it does not in time. Blocks."""
        try:
            self._process.wait(timeout_s)
        except TimeoutExpired:
            self.kill()
            self._process.wait()
        self._reader.join(_LINGER_S)
        return Ended(self._process.returncode, b"", self._stderr)

    def _read_errors(self) -> None:
        """Keep the end of what it writes to stderr: its last line says most."""
        stream = self._process.stderr
        while stream is not None and (data := os.read(stream.fileno(), MAX_LINE_BYTES)):
            self._stderr = (self._stderr + data)[-MAX_LINE_BYTES:]
        if stream is not None:
            stream.close()


def _detached(stream: IO[bytes] | None) -> int:
    """Return the descriptor of a stream, which is the caller's from now on."""
    if stream is None:
        raise ValueError("the program was started without this stream")
    fd = os.dup(stream.fileno())
    stream.close()
    return fd


def python_program(path: Path, *arguments: str) -> list[str]:
    """Return how a Python file is run as a program that imports the standard library alone."""
    return [sys.executable, "-I", "-S", str(path), *arguments]


async def _talk(process: Process, feed: "_Input", *outputs: "_Output") -> bool:
    """Feed and hear it until it has ended; return whether others still hold its streams."""
    async with anyio.create_task_group() as tasks:
        for task in (feed.write, *(output.read for output in outputs)):
            tasks.start_soon(task, name=task.__qualname__)
        await process.wait()
        # It has ended, and that counts, even if it is too late for who waits for it.
        tasks.cancel_scope.shield = True
        tasks.cancel_scope.deadline = current_time() + _LINGER_S
    for output in outputs:
        output.take()
    return any(not output.at_end for output in outputs)


class _End:
    """A pipe, of which one end is the program's until that has started."""

    def __init__(self, ours: int, theirs: int, ends: ExitStack) -> None:
        self.ours = ours
        self.theirs = theirs
        os.set_blocking(ours, False)
        self._close_ours = _once(ours, ends)
        self.close_theirs = _once(theirs, ends)


class _Output(_End):
    """What the program writes to one stream."""

    def __init__(self, keep_bytes: int, ends: ExitStack) -> None:
        super().__init__(*os.pipe(), ends)
        self.kept = bytearray()
        self.at_end = False
        self._keep_bytes = keep_bytes

    async def read(self) -> None:
        """Take all of it, until nobody can write any more."""
        while not self.at_end:
            await anyio.wait_readable(self.ours)
            self.take()

    def take(self) -> None:
        """Take what is there."""
        with suppress(BlockingIOError):
            chunk = os.read(self.ours, _READ_BYTES)
            self.at_end = not chunk
            self.kept += chunk[: self._keep_bytes - len(self.kept)]


class _Input(_End):
    """What the program reads."""

    def __init__(self, data: bytes, ends: ExitStack) -> None:
        theirs, ours = os.pipe()
        super().__init__(ours, theirs, ends)
        self._data = memoryview(data)

    async def write(self) -> None:
        """Hand it over; a program that does not care for its input may end without reading it."""
        with suppress(BrokenPipeError):
            while self._data:
                await anyio.wait_writable(self.ours)
                with suppress(BlockingIOError):
                    self._data = self._data[os.write(self.ours, self._data) :]
        self._close_ours()


def _once(fd: int, ends: ExitStack) -> Callable[[], None]:
    """Return what closes a descriptor, now or at the end of ``ends``, and not twice."""
    closing = ends.enter_context(ExitStack())
    closing.callback(os.close, fd)
    return closing.close
