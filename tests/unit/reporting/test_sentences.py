"""Each event has a sentence for lines of plain output, or a reason to have none."""

import pytest

from fakes.events_of_all_kinds import events_named
from virtbackup_async.events import DisksHeld, HookEnded, HookStarted
from virtbackup_async.reporting.sentences import in_words

REPORT = "the report on stdout has it"
PROGRESS = "the lines of progress have it"
SILENT = {
    "run_info": "for programs only",
    "backups_expected": PROGRESS,
    "disk_progress": PROGRESS,
    "repository_progress": PROGRESS,
    "pending_found": "the event that says what became of it follows",
    "summary": "the last line of the program has its error",
    # How much is free, with how many runs it is enough for.
    "target_space": REPORT,
    **dict.fromkeys(
        (
            "backup", "backup_details", "backup_stats", "backups_forgotten", "broken_backup",
            "clean_verdict", "config_written", "copy_planned", "day_stats", "disk_compared",
            "disk_planned", "domain", "domain_found", "domain_stats", "file_system_found",
            "finding", "group_stats", "health", "past_requests", "past_run",
            "removal_planned", "report_written", "repository_stats", "status", "target_planned",
            "target_unreadable", "unclaimed_backups",
        ),
        REPORT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("event", events_named("web"), ids=lambda event: event.kind)
def test_each_event_has_a_sentence_or_a_reason_to_have_none(event):
    assert (in_words(event) is None) == (event.kind in SILENT)


def test_hooks_are_named_with_their_group():
    assert in_words(HookStarted("before", "main")) == "hook before of group main: started"
    assert in_words(HookEnded("after", None, 3.2)) == "hook after: ended after 3.2 s"


def test_a_guest_that_was_not_frozen_is_not_thawed():
    held = DisksHeld("web", quiesced=True, frozen_ms=307)
    assert in_words(held) == "web: guest thawed after 307 ms"
    assert in_words(DisksHeld("web", quiesced=False, frozen_ms=None)) is None
