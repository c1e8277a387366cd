"""events.OF_EACH_BACKUP: what a report alone collects, so all others may pass it over."""

import pytest

from fakes.recorded_run import listed
from virtbackup_async import events
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.sentences import in_words

EACH = (
    listed("web", 1),
    events.BackupStats("main", "web", "b", "", "tar", 1, 1, 1, 1),
    events.CleanVerdict("main", "web", "b", "", "/t/b.json", False, (), 1),
)


def test_there_is_one_of_each_kind():
    assert tuple(map(type, EACH)) == events.OF_EACH_BACKUP


@pytest.mark.parametrize("event", EACH, ids=lambda event: event.kind)
def test_it_is_passed_on_and_changes_nothing(event):
    seen = []
    outcome = RunOutcome(seen.append, clock_s=lambda: 0.0)
    before = outcome.summary([], None)
    outcome.emit(event)
    assert seen == [event]
    assert outcome.summary([], None) == before
    assert in_words(event) is None
