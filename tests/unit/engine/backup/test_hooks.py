"""Hooks around a real run: what they are told, what stops a backup, what only makes it fail."""

import json
import os

import anyio
import pytest
import yaml

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import BackupDone, BackupFailed, HookFailed
from virtbackup_async.reporting.outcome import RunOutcome


@pytest.fixture
def domain(tmp_path):
    image = tmp_path / "fake.raw"
    image.write_bytes(b"x" * 65536)
    return DescribedDomain({"vda": image}, active=False)


@pytest.fixture
def run(tmp_path, domain):
    (tmp_path / "target").mkdir()

    async def run(group_hooks=None, *, hosts=("fake",), mode=0o600, **hooks):
        group = {"target": str(tmp_path / "target"), "packager": "directory", "autostart": True}
        group |= {"hosts": list(hosts), "hooks": group_hooks or {}}
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump({"hooks": hooks, "groups": {"main": group}}))
        path.chmod(mode)
        events = []
        run_outcome = RunOutcome(events.append)
        await run_backup(
            Runtime(load_config(path), run_outcome.emit, FakeHypervisor(domain)), BackupRequest()
        )
        return events, run_outcome.summary([], None)

    return run


def kinds(events):
    return [
        event.kind for event in events if isinstance(event, BackupDone | BackupFailed | HookFailed)
    ]


def note(tmp_path, word):
    """A hook in shell's words that leaves a line in a file, so that the order can be seen."""
    return f'echo {word}-"$VIRTBACKUP_GROUP" >> {tmp_path}/order'


async def test_hooks_stand_around_the_backups_from_the_outside_in(run, tmp_path):
    hooks = {name: note(tmp_path, name) for name in ("before", "after", "on_failure")}
    events, last = await run(hooks, **hooks)
    assert (kinds(events), last.exit_code) == (["backup_done"], 0)
    order = (tmp_path / "order").read_text().split()
    assert order == ["before-", "before-main", "after-main", "after-"]


async def test_a_hook_is_told_by_stdin_and_environment(run, tmp_path):
    report = tmp_path / "report"
    words = "$VIRTBACKUP_HOOK $VIRTBACKUP_TARGET $VIRTBACKUP_COMMAND"
    hook = f'cat > {report}; echo "{words}" >> {report}'
    await run({"after": hook}, hosts=["fake", "gone"])
    told, line = report.read_text().splitlines()
    told = json.loads(told)
    assert (told["hook"], told["group"], told["ok"]) == ("after", "main", False)
    assert [one["domain"] for one in told["done"]] == ["fake"]
    assert [one["domain"] for one in told["failed"]] == ["gone"]
    assert told["done"][0]["stored_bytes"] == 65536
    assert line == f"after {tmp_path}/target backup"


async def test_a_list_is_run_without_a_shell(run, tmp_path):
    events, _ = await run({"before": ["touch", f"{tmp_path}/a; b"]})
    assert (tmp_path / "a; b").exists()
    assert kinds(events) == ["backup_done"]


@pytest.mark.parametrize("where", ["group", "run"])
async def test_a_failing_before_fails_the_backups_and_touches_nothing(run, tmp_path, where, domain):
    hooks = {"before": "exit 7", "after": note(tmp_path, "after")}
    events, last = await (run(hooks) if where == "group" else run(**hooks))
    assert kinds(events) == ["hook_failed", "backup_failed"]
    failed = next(event for event in events if isinstance(event, BackupFailed))
    assert failed.error.startswith(
        "hook before of group main failed." if where == "group" else "hook before failed."
    )
    (told,) = (event.error for event in events if event.kind == "hook_failed")
    assert "exited with 7" in told
    assert failed.exit_code == 23
    assert last.exit_code == 3
    assert domain.calls == []
    assert list((tmp_path / "target").iterdir()) == []
    assert (tmp_path / "order").read_text().startswith("after-")


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("exit 1", "hook after of group main exited with 1"),
        (["/nonexistent/hook"], "cannot run /nonexistent/hook: No such file"),
    ],
)
async def test_a_failing_after_keeps_the_backup_and_makes_the_run_fail(run, hook, said):
    events, last = await run({"after": hook})
    assert kinds(events) == ["backup_done", "hook_failed"]
    assert last.exit_code == 3
    assert said in last.error


async def test_a_hook_that_hangs_is_killed(run):
    events, last = await run({"after": "sleep 1000", "timeout_s": 1})
    assert kinds(events) == ["backup_done", "hook_failed"]
    assert "killed after 1 s" in last.error


@pytest.mark.parametrize("where", ["run", "group"])
async def test_hooks_that_others_can_write_are_refused(run, tmp_path, domain, where):
    """Whoever may write the file would be us: none of them runs, and nothing is touched."""
    hooks = {name: note(tmp_path, name) for name in ("before", "after", "on_failure")}
    group, around = (None, hooks) if where == "run" else (hooks, {})
    events, last = await run(group, mode=0o666, **around)
    assert kinds(events) == ["hook_failed", "backup_failed"]
    said = f"others can write to {tmp_path}/config.yml (mode 0666)"
    assert said in events[-1].error or said in last.error
    assert (last.exit_code, (tmp_path / "order").exists()) == (3, False)
    assert not [*(tmp_path / "target").iterdir()]


async def test_without_hooks_anybody_may_write_the_file(run):
    events, _ = await run(mode=0o666)
    assert kinds(events) == ["backup_done"]


async def test_a_hook_may_leave_something_running(run, tmp_path, caplog):
    """As ``ssh -f`` and ``gocryptfs`` do: it is not waited for, and the backup is made."""
    caplog.set_level("INFO")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    child = f"sh -c 'read line <{fifo}' & echo hi"
    with anyio.fail_after(20):
        events, last = await run({"before": child, "after": child}, before=child, after=child)
    fifo.unlink()  # who has not opened it yet must not wait in it for ever
    os.write(fd, b"\n" * 4)
    os.close(fd)
    assert (kinds(events), last.exit_code) == (["backup_done"], 0)
    said = [record.getMessage() for record in caplog.records if "hook" in record.name]
    assert said[:2] == [
        "hook before: hi",
        "hook before: left a program running that still holds its output",
    ]


async def test_on_failure_runs_only_then(run, tmp_path):
    await run({"on_failure": note(tmp_path, "failed")}, hosts=["fake", "gone"])
    assert (tmp_path / "order").read_text() == "failed-main\n"


async def test_after_runs_when_the_run_is_cancelled(run, tmp_path):
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run({"after": note(tmp_path, "after")}, after=note(tmp_path, "after"))
    assert (tmp_path / "order").read_text() == "after-main\nafter-\n"


async def test_a_failure_is_told_in_the_words_of_the_hook(run):
    say = "echo first >&2; echo the backup disk is not mounted >&2; exit 4"
    events, _ = await run({"before": say})
    said = "hook before of group main exited with 4: the backup disk is not mounted"
    assert [event.error for event in events if event.kind == "hook_failed"] == [said]
    _, last = await run({"after": "echo to stdout; exit 4"})
    assert "hook after of group main exited with 4" in last.error
    assert "to stdout" not in last.error


async def test_the_words_of_a_failed_hook_come_once(run, caplog):
    """Its event has its last line: neither the log nor each of the backups repeats it."""
    say = "echo first >&2; echo no disk >&2; exit 4"
    events, last = await run({"before": say}, hosts=["fake", "gone"])
    shown = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    shown += [event.error for event in events if hasattr(event, "error")]
    assert [text.count("first") for text in shown].count(1) == 1
    assert sum(text.count("no disk") for text in (*shown, last.error or "")) == 1


async def test_output_goes_to_the_log(run, caplog):
    caplog.set_level("INFO")
    await run({"before": "echo to stdout; echo to stderr >&2"})
    said = [record.getMessage() for record in caplog.records if "hook" in record.name]
    assert said == [f"hook before of group main: to {name}" for name in ("stdout", "stderr")]
