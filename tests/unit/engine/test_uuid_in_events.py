"""A rename breaks no series: each event about one backup has the UUID of its domain."""

import typing
from contextlib import suppress

from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import Event

UUID = "f56e90f5-461f-4ae3-b494-7f609f5de63e"
# Of these, no definition can be read.
WITHOUT = {"pending_found", "pending_left", "pending_undone"}


def about_a_backup(kinds):
    return {kind for kind in kinds if {"domain", "backup"} <= set(kind.__struct_fields__)}


def test_each_event_about_a_backup_has_the_field():
    kinds = about_a_backup(typing.get_args(Event))
    assert len(kinds) > 15
    lacking = {kind.kind for kind in kinds if "uuid" not in kind.__struct_fields__}
    assert lacking == WITHOUT


async def test_it_is_that_of_the_definition(configure, put):
    name = put("web", uuid=UUID, version="1.0.0")
    put("web", 1, uuid=UUID, version="1.0.0")
    config = configure(main={"hosts": ["web"], "daily": 1})
    told = []
    async with open_virtbackup(config, on_event=told.append) as vb:
        await vb.list()
        await vb.pin(name)
        for work in (vb.verify, vb.stats, vb.clean):
            with suppress(VirtBackupError):  # the data is empty, so it is damaged
                await work()
    found = [event for event in told if about_a_backup([type(event)])]
    assert {"backup", "pin_changed", "verify_started", "clean_verdict"} <= {e.kind for e in found}
    # Progress is said outside of backups too, without one (docs/reference/json.md).
    progress = {"phase", "disk_progress", "disk_done", "warning"}
    assert [e for e in found if e.uuid != UUID and e.kind not in progress] == []
