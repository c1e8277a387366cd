"""Programs run beside this one: fed, heard, and ended with all that they started."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from virtbackup_async import processes
from virtbackup_async.processes import MAX_LINE_BYTES, open_companion, run_program


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


def _descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _is_alive(pid):
    try:
        os.kill(pid, signal.SIGCONT)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def fifo(tmp_path):
    """What a child reads that lives on: it ends when the test has ended."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    yield path
    # Who has not opened it yet must not wait in it for ever.
    path.unlink()
    os.write(fd, b"\n" * 10)
    os.close(fd)


@pytest.mark.parametrize("left", ["{} &", "setsid {} &", "( {} & )"])
async def test_one_that_leaves_a_child_behind_has_ended(left, fifo):
    """The child holds the streams: their end is not waited for, what was written is there."""
    child = left.format(f"sh -c 'read line <{fifo}'")
    with anyio.fail_after(20):
        ended = await run_program(("sh", "-c", f"echo out; echo err >&2; {child}"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"out\n", b"err\n")
    assert ended.left_running


async def test_a_child_that_holds_no_stream_costs_no_time(fifo, monkeypatch):
    monkeypatch.setattr(processes, "_LINGER_S", 1000)
    argv = ("sh", "-c", f"sh -c 'read line <{fifo}' >/dev/null 2>&1 & echo out")
    with anyio.fail_after(20):
        ended = await run_program(argv)
    assert (ended.stdout, ended.left_running) == (b"out\n", False)


async def test_input_that_only_a_child_could_read_is_not_waited_for(fifo):
    child = f"sh -c 'read line <{fifo}' 3<&3 >/dev/null 2>&1"
    with anyio.fail_after(20):
        ended = await run_program(
            ("sh", "-c", f"exec 3<&0; {child} & exit 4"), stdin=b"x" * (1 << 22)
        )
    assert ended.returncode == 4


async def test_one_that_has_ended_is_not_taken_for_killed(fifo, monkeypatch):
    """Whoever waits loses patience after its end, while what it left is still listened to."""
    ended, now = None, anyio.current_time

    def and_lose_patience():
        scope.cancel()
        return now()

    monkeypatch.setattr(processes, "current_time", and_lose_patience)
    with anyio.CancelScope() as scope:
        ended = await run_program(("sh", "-c", f"sh -c 'read line <{fifo}' & echo out"))
    assert ended is not None
    assert (ended.returncode, ended.stdout) == (0, b"out\n")


async def test_a_child_that_never_stops_writing_is_not_heard_for_ever():
    with anyio.fail_after(20):
        ended = await run_program(("sh", "-c", "yes & exit 0"), keep_bytes=100)
    assert (len(ended.stdout), ended.left_running) == (100, True)


async def test_no_descriptor_is_left_open():
    before = _descriptors()
    await run_program(("sh", "-c", "cat"), stdin=b"in")
    with pytest.raises(FileNotFoundError):
        await run_program(("/nonexistent/program",))
    with anyio.move_on_after(0.1):
        await run_program(("sleep", "1000"))
    assert _descriptors() == before


async def test_a_companion_is_spoken_to_and_ends_with_the_block():
    async with open_companion(("cat",), end_timeout_s=30) as companion:
        await companion.say(b"one\ntwo\nthr")
        assert [await companion.hear(), await companion.hear()] == [b"one\n", b"two\n"]
    with pytest.raises(ProcessLookupError):
        os.kill(companion.pid, 0)


async def test_a_companion_that_has_ended_says_nothing_more():
    async with open_companion(("sh", "-c", "printf half"), end_timeout_s=30) as companion:
        assert [await companion.hear(), await companion.hear()] == [b"half", b""]


async def test_a_companion_that_talks_without_a_break_is_cut_off():
    async with open_companion(("cat", "/dev/zero"), end_timeout_s=0) as companion:
        assert MAX_LINE_BYTES < len(await companion.hear()) <= 2 * MAX_LINE_BYTES


async def test_a_companion_that_does_not_end_is_killed():
    async with open_companion(("sleep", "600"), end_timeout_s=0) as companion:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(companion.pid, 0)


async def test_a_companion_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        async with open_companion(("/nonexistent/program",), end_timeout_s=1):
            pass
