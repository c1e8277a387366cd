"""One error for whatever ended a piece of work: the program's own, or a bug in it."""

import logging

import pytest

from virtbackup_async.engine.outcome import known_error, most_severe
from virtbackup_async.errors import HypervisorError, RollbackError, StorageError, VirtBackupError


def test_an_error_of_the_program_stays_what_it_is(caplog):
    error = StorageError("full", hint="Make space.")
    assert known_error("web", error) is error
    assert caplog.records == []


def test_a_bug_becomes_an_error_and_its_traceback_is_logged(caplog):
    error = known_error("web", KeyError("vda"))
    assert type(error) is VirtBackupError
    assert error.message == "unexpected: KeyError: 'vda'"
    assert "-d" in error.hint
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "web: unexpected error")
    assert record.exc_info[0] is KeyError


FULL, LEFT, LOST = StorageError("full"), RollbackError("left"), HypervisorError("lost")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([FULL, LOST], FULL),
        ([FULL, LEFT], LEFT),
        ([FULL, ExceptionGroup("inner", [LOST, LEFT])], LEFT),
        ([ExceptionGroup("inner", [KeyError()]), LOST], LOST),
        ([KeyError()], None),
    ],
)
def test_what_is_left_to_undo_is_the_most_severe_error(errors, expected):
    assert most_severe(ExceptionGroup("tasks", errors)) is expected
