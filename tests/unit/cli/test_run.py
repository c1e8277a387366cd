"""The runner as a process of its own: real signals, real exit codes, no libvirt."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT_S = 20
PROGRAM = """
import sys
import anyio
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.cli.options import Settings
from virtbackup_async.errors import ConfigError, ConnectionFailedError, RollbackError
from virtbackup_async.events import *

def fail(domain, **more):
    return BackupFailed("main", domain, "refused", 10, **more)

async def nothing(emit):
    emit(RunStarted("backup", ()))

async def some_fail(emit):
    emit(fail("web"))

async def refused(emit):
    raise ConnectionFailedError("libvirt does not\\nanswer\\x1b[2J", hint="Start libvirtd.")

async def bug(emit):
    raise ValueError("odd")

async def groups(emit):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused, emit)
        tasks.start_soon(refused, emit)

async def rollback(emit):
    raise RollbackError("the overlay is still there")

async def undoes(emit):
    emit(BackupStarted("main", "web", "20260701_web", ("vda",)))
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        emit(fail("web", cancelled=True))
        raise

async def hangs(emit):
    emit(BackupStarted("main", "web", "20260701_web", ("vda",)))
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            emit(PhaseChanged("web", Phase.UNDOING))
            await anyio.sleep_forever()

async def finishes(emit):
    emit(BackupStarted("main", "web", "20260701_web", ("vda",)))
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(sys.stdin.readline)

def misconfigured(emit):
    raise ConfigError("no such group: nope", hint="Name one of: main.")

def several(emit):
    raise ConfigError("c:1: one\\nc:2: two\\x1b", hint="Check it.")

name, *options = sys.argv[1:]
work = globals()[name]
settings = Settings(json="--json" in options, debug="-d" in options)
job = Job(work, debug="debug-in-config" in options)
run(settings, work if name in ("misconfigured", "several") else lambda emit: job, reports.run)
"""


def finished(name, *options):
    argv = [sys.executable, "-c", PROGRAM, name, *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=False)


@contextmanager
def running(name, *prefix):
    argv = [*prefix, sys.executable, "-c", PROGRAM, name, "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process, kind):
    for line in process.stdout:
        if (found := json.loads(line))["event"] == kind:
            return found
    pytest.fail(f"the program ended without {kind}: {process.stderr.read()}")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nothing", 0, None),
        ("some_fail", 3, "1 of 1 backups failed."),
        ("refused", 10, "libvirt does not\\nanswer\\x1b[2J. Start libvirtd."),
        ("groups", 10, "libvirt does not\\nanswer\\x1b[2J. Start libvirtd."),
        ("rollback", 14, "the overlay is still there."),
        ("misconfigured", 2, "no such group: nope. Name one of: main."),
        ("bug", 1, "unexpected ValueError: odd. Run again with -d to see where."),
    ],
)
def test_an_end_is_one_line_on_stderr_and_a_code(name, code, said):
    ended = finished(name, "--json")
    assert ended.returncode == code
    assert ended.stderr == (f"virtbackup: {said}\n" if said else "")
    last = json.loads(ended.stdout.splitlines()[-1])
    assert (last["event"], last["ok"], last["exit_code"]) == ("summary", code == 0, code)


def test_each_problem_of_a_configuration_is_a_line_of_its_own():
    said = finished("several").stderr.splitlines()
    assert said == ["virtbackup: c:1: one.", r"virtbackup: c:2: two\x1b. Check it."]


def test_a_traceback_is_shown_only_on_demand():
    assert "Traceback" not in finished("bug").stderr
    assert "ValueError: odd" in finished("bug", "-d").stderr
    assert "Traceback" in finished("bug", "-d").stderr
    assert "Traceback" in finished("bug", "debug-in-config").stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_cancels_and_the_work_undoes(signum):
    with running("undoes") as process:
        read_until(process, "backup_started")
        process.send_signal(signum)
        assert signum.name in read_until(process, "warning")["message"]
        assert read_until(process, "backup_failed")["cancelled"]
        assert read_until(process, "summary")["exit_code"] == 128 + signum
        assert process.wait(WAIT_S) == 128 + signum
        assert process.stderr.read() == f"virtbackup: stopped by {signum.name}.\n"


def test_the_second_signal_leaves_at_once_and_says_what_is_pending():
    with running("hangs") as process:
        read_until(process, "backup_started")
        process.send_signal(signal.SIGTERM)
        read_until(process, "phase")
        process.send_signal(signal.SIGTERM)
        assert read_until(process, "backup_failed")["left_pending"]
        assert read_until(process, "summary")["exit_code"] == 14
        assert process.wait(WAIT_S) == 14
        said = process.stderr.read()
    assert said.count("\n") == 1
    assert "web" in said
    assert "virtbackup clean -b" in said


def test_a_signal_that_comes_too_late_to_stop_anything_is_no_failure():
    with running("finishes") as process:
        read_until(process, "backup_started")
        process.send_signal(signal.SIGINT)
        read_until(process, "warning")
        process.stdin.write("\n")
        process.stdin.flush()
        assert read_until(process, "summary")["exit_code"] == 0
        assert process.wait(WAIT_S) == 0


def test_a_signal_ignored_from_the_start_stays_ignored():
    with running("undoes", "nohup") as process:
        read_until(process, "backup_started")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM" in read_until(process, "warning")["message"]
        assert process.wait(WAIT_S) == 143


def test_a_reader_that_goes_away_is_no_error():
    with running("undoes") as process:
        read_until(process, "backup_started")
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 143
        assert process.stderr.read() == "virtbackup: stopped by SIGTERM.\n"


def test_a_result_that_cannot_be_written_is_an_error():
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, "nothing", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr


def test_the_terminal_is_clean_after_ctrl_c():
    main, side = pty.openpty()
    argv = [sys.executable, "-c", PROGRAM, "undoes"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=side, env=environment
    )
    try:
        os.close(side)
        drawn = read_terminal(main, b"preparing")
        process.terminate()
        drawn += read_terminal(main, None)
        assert process.wait(WAIT_S) == 143
    finally:
        process.kill()
        os.close(main)
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h") == 1
    assert drawn.rstrip().endswith(b"virtbackup: stopped by SIGTERM.")


def read_terminal(main, until):
    """What the terminal was sent until these bytes came; None reads to the end."""
    seen = b""
    while until is None or until not in seen:
        ready, _, _ = select.select([main], [], [], WAIT_S)
        assert ready, f"nothing more came after {seen!r}"
        try:
            seen += os.read(main, 65536)
        except OSError:  # the other side is closed: the process has ended
            assert until is None, f"ended after {seen!r}"
            return seen
    return seen


def test_ctrl_z_and_fg_say_what_they_did():
    with running("undoes") as process:
        read_until(process, "backup_started")
        process.send_signal(signal.SIGTSTP)
        stopped = read_until(process, "warning")
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        process.send_signal(signal.SIGCONT)
        continued = read_until(process, "warning")
        process.terminate()
        process.communicate(timeout=WAIT_S)
    assert stopped["message"] == "stopped: overlays or scratch images grow until it continues: web"
    assert re.fullmatch(r"continued after \d+\.\d s: web", continued["message"])
