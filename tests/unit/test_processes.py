"""Programs run beside this one: fed, heard, and ended with all that they started."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from virtbackup_async.processes import run_program


async def test_a_program_is_fed_and_heard():
    argv = ("sh", "-c", 'cat; echo "$WORD" >&2; exit 3')
    ended = await run_program(argv, stdin=b"in", environment={**os.environ, "WORD": "err"})
    assert (ended.returncode, ended.stdout, ended.last_words) == (3, b"in", "err")


async def test_without_input_it_reads_nothing():
    ended = await run_program(("cat",))
    assert (ended.returncode, ended.stdout, ended.last_words) == (0, b"", "exit code 0")


async def test_one_that_does_not_read_its_input_is_no_error():
    assert (await run_program(("true",), stdin=b"x" * (1 << 22))).returncode == 0


async def test_what_is_too_much_is_dropped():
    ended = await run_program(("sh", "-c", "yes | head -c 3000000"), keep_bytes=1000)
    assert len(ended.stdout) == 1000


async def test_one_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        await run_program(("/nonexistent/program",))


async def test_a_cancelled_program_is_killed_with_its_children(tmp_path):
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    child = None

    async def run():
        await run_program(("sh", "-c", f"sleep 1000 & echo $! > {fifo}; wait"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            child = int(await anyio.Path(fifo).read_text())
            os.kill(child, 0)
            tasks.cancel_scope.cancel()
        while _is_alive(child):
            await anyio.sleep(0.01)


def _is_alive(pid):
    try:
        os.kill(pid, signal.SIGCONT)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
