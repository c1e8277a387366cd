"""The history of a target: whatever becomes of the file, no run fails because of it."""

import errno
import fcntl
import json
import os
import threading

import anyio
import pytest

from fakes.failing_calls import failing
from fakes.overview_facts import DAY, NIGHT, domain_run, run
from virtbackup_async.catalog.history import (
    FILE,
    TEXT_MAX,
    Limits,
    append_run,
    dumps,
    loads,
    read_history,
    shortened,
)
from virtbackup_async.errors import LockHeldError, StorageError, StorageFullError
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.model.storage_location import StorageLocation

RUN = run(0, [domain_run(), domain_run("db", outcome=Outcome.FAILED)], exit_code=3, error="1 of 2")


@pytest.fixture
def file(tmp_path):
    return tmp_path / FILE


async def append(target, record=RUN, **different):
    await append_run(
        StorageLocation.of(target), record, **{"create": True, "timeout_s": 0, **different}
    )


async def test_what_is_appended_is_read(tmp_path, file):
    await append(tmp_path, run(1))
    await append(tmp_path)
    history = await read_history(StorageLocation.of(tmp_path))
    assert history.runs == (run(1), RUN)
    assert history.damaged == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().count(b"\n") == 2


async def test_a_history_is_begun_only_where_that_is_allowed(tmp_path, file):
    await append(tmp_path, create=False)
    assert not file.exists()
    assert (await read_history(StorageLocation.of(tmp_path))).runs == ()
    file.touch()
    await append(tmp_path, create=False)
    assert (await read_history(StorageLocation.of(tmp_path))).runs == (RUN,)


async def test_nothing_is_made_where_the_target_is_missing(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        await append(tmp_path / "away")
    assert not (tmp_path / "away").exists()


async def test_a_part_of_a_line_spoils_no_other(tmp_path, file):
    file.write_bytes(dumps(run(1)) + dumps(run(2))[:50])
    await append(tmp_path)
    history = await read_history(StorageLocation.of(tmp_path))
    assert history.runs == (run(1), RUN)
    assert history.damaged == 1


HOSTILE = [
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{}",
    b'{"run_id":1}',
    b"[" * 100_000,
    dumps(RUN).replace(b'"exit_code":3', b'"exit_code":-3'),
    dumps(RUN).replace(b'"exit_code":3', b'"exit_code":1e999'),
    dumps(RUN).replace(b'"end":', b'"end":1e999,"x":'),
    dumps(RUN).replace(b'"end":', b'"end":99999999999999,"x":'),
    dumps(RUN).replace(b'"used_bytes":', b'"used_bytes":-1,"x":'),
    dumps(RUN).replace(b'"host":"host1"', b'"host":"' + b"x" * (TEXT_MAX + 1) + b'"'),
    json.dumps({**json.loads(dumps(RUN)), "domains": {"a": 1}}).encode(),
    json.dumps({**json.loads(dumps(RUN)), "unknown": [[[[]]]] * 9, "domains": 3}).encode(),
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_counted_and_left_out(line):
    history = loads(dumps(run(2)) + line.strip() + b"\n" + dumps(run(1)))
    assert history.runs == (run(2), run(1))
    assert history.damaged == 1


def test_unknown_keys_are_passed_over_and_the_lines_of_a_run_are_joined():
    newer = json.dumps({**json.loads(dumps(RUN)), "weather": {"sunny": True}}).encode() + b"\n"
    again = dumps(run(0, [domain_run("mail"), domain_run()], exit_code=14))
    assert loads(newer).runs == (RUN,)
    (joined,) = loads(newer + again).runs
    assert joined.exit_code == 14
    assert [domain.domain for domain in joined.domains] == ["web", "db", "mail"]


async def test_names_that_json_cannot_hold_and_long_texts_are_written(tmp_path):
    odd = run(0, [domain_run("\udcff\x1b[31m", error="x" * 9999)])
    await append(tmp_path, odd)
    (found,) = (await read_history(StorageLocation.of(tmp_path))).runs
    assert found.domains[0].domain == "\\udcff\x1b[31m"
    assert found.domains[0].error == "x" * TEXT_MAX


@pytest.mark.parametrize("place", ["link", "pipe", "directory"])
async def test_what_is_no_file_is_neither_read_nor_written(tmp_path, file, place):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    match place:
        case "link":
            file.symlink_to(other)
        case "pipe":
            os.mkfifo(file)
        case _:
            file.mkdir()
    with pytest.raises(StorageError):
        await append(tmp_path)
    with pytest.raises(StorageError):
        await read_history(StorageLocation.of(tmp_path))
    assert other.read_bytes() == b"precious"


async def test_a_file_that_has_a_second_name_is_not_written(tmp_path, file):
    """Who can write to the target may have made any file of the host the history."""
    other = tmp_path / "other"
    other.write_bytes(b"precious\n")
    file.hardlink_to(other)
    with pytest.raises(StorageError, match="second name"):
        await append(tmp_path)
    assert other.read_bytes() == b"precious\n"


async def test_another_writer_is_waited_for_and_not_for_ever(tmp_path, file):
    file.touch()
    with file.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LockHeldError, match="another process writes"):
            await append(tmp_path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: append(tmp_path, timeout_s=50))
            await anyio.lowlevel.checkpoint()
            fcntl.flock(other, fcntl.LOCK_UN)
    assert (await read_history(StorageLocation.of(tmp_path))).runs == (RUN,)


def test_two_writers_lose_nothing_though_the_file_is_replaced_again_and_again(tmp_path):
    # So short that each replaces the file several times, and so long that all runs stay.
    limits = Limits(file_bytes=len(dumps(run(0))) * 12, kept_bytes=len(dumps(run(0))) * 11)

    def write(nights):
        async def all_of_them():
            for night in nights:
                await append(tmp_path, run(night), limits=limits, timeout_s=50)

        anyio.run(all_of_them)

    writers = [threading.Thread(target=write, args=[range(n, 10, 2)]) for n in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    history = anyio.run(read_history, StorageLocation.of(tmp_path))
    assert history.runs == tuple(run(night) for night in range(9, -1, -1))
    assert history.damaged == 0
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


async def test_a_full_disk_leaves_whole_lines(tmp_path, file, monkeypatch):
    await append(tmp_path, run(1))
    before, write = file.read_bytes(), os.write

    def half(fd, data):
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:-50])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StorageFullError):
        await append(tmp_path)
    assert file.read_bytes() == before


async def test_a_file_that_cannot_be_replaced_stays(tmp_path, file):
    file.write_bytes(dumps(run(1)))
    full = failing("rename", lambda path: path == file, errno.ENOSPC)
    with full, pytest.raises(StorageFullError):
        await append(tmp_path, limits=Limits(1, 1 << 20))
    assert file.read_bytes() == dumps(run(1))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


async def test_of_a_huge_file_the_end_is_read(tmp_path, file):
    limits = Limits(file_bytes=5000, kept_bytes=4000)
    file.write_bytes(b"x" * 100_000 + b"\n" + dumps(run(1)))
    assert (await read_history(StorageLocation.of(tmp_path), limits)).runs == (run(1),)
    await append(tmp_path, limits=limits)
    assert (await read_history(StorageLocation.of(tmp_path), limits)).runs == (run(1), RUN)
    assert file.stat().st_size < 5000


async def test_a_huge_line_does_not_keep_the_next_run_out(tmp_path, file):
    file.write_bytes(b"x" * 100_000)
    await append(tmp_path, limits=Limits(5000, 4000))
    assert (await read_history(StorageLocation.of(tmp_path))).runs == (RUN,)


def test_old_runs_lose_their_phases_then_their_domains_then_their_lines():
    runs = [run(night, [domain_run(nights_ago=night)]) for night in range(5000, 0, -1)]
    lines = [loads(line).runs[0] for line in shortened(runs, 8 << 20)]
    assert lines == [
        *(run(night) for night in range(4000, 400, -1)),
        *(run(night, [domain_run(nights_ago=night, phases=())]) for night in range(400, 30, -1)),
        *runs[-30:],
    ]
    (only,) = (loads(line).runs[0] for line in shortened(runs, len(dumps(run(1))) + 5))
    assert only == run(1)


def test_the_sizes_stay_within_the_limit_for_a_thousand_guests():
    night = [domain_run(f"guest-{number:04}") for number in range(1000)]
    lines = shortened([run(number, night) for number in range(120, 0, -1)], 16 << 20)
    assert sum(map(len, lines)) <= 16 << 20
    assert loads(lines[-1]).runs == (run(1, night),)
    assert len(lines) == 120


def test_the_runs_are_in_order_of_their_begin():
    assert [r.start for r in loads(dumps(run(0)) + dumps(run(3))).runs] == [NIGHT - 3 * DAY, NIGHT]
