"""The requests to object stores: counted by command, by target, by verb and by kind of file."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as with_id

from fakes.recorded_run import summary
from fakes.site import Site
from object_stores import new_location
from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats
from virtbackup_async.engine.requests import RequestMeter
from virtbackup_async.events import PastRequests, RequestCount, StoreRequests, Warned
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.metrics import samples_of
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.repository import Kind, open_storage

MADE = StoreRequests(
    "s3://backups", 12, 300, 20,
    (
        RequestCount("put", "packs", 3, 250, 0),
        RequestCount("put", "guests", 4, 50, 0),
        RequestCount("get", "index", 5, 0, 20),
    ),
)  # fmt: skip


def test_a_meter_counts_what_comes_after_it(object_server):
    location = new_location(object_server.endpoint)
    storage = open_storage(location)
    storage.put_new("web/a", b"12345")
    meter = RequestMeter()
    assert list(meter.events()) == []
    storage.put_new("web/b", b"123")
    assert storage.read("web/b", 10) == b"123"
    storage.names(".virtbackup-repository/packs", {Kind.FILE})
    (made,) = meter.events()
    assert made.target == str(location)
    assert (made.sent_bytes, made.received_bytes) == (3, 3)
    counts = {(one.verb, one.file): one.requests for one in made.kinds}
    assert counts == {
        ("put", "guests"): 1, ("head", "guests"): 1, ("get", "guests"): 1, ("list", "packs"): 1,
    }  # fmt: skip
    assert made.requests == 4


async def test_a_command_ends_with_its_requests(object_server, monkeypatch):
    location = new_location(object_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    seen = []
    async with open_virtbackup(target=str(location), on_event=seen.append) as virtbackup:
        await virtbackup.list()
        assert not any(isinstance(event, StoreRequests) for event in seen)
    (made,) = [event for event in seen if isinstance(event, StoreRequests)]
    assert made.target == str(location)
    assert {one.verb for one in made.kinds} >= {"list", "get"}


async def test_commands_on_directories_have_none(tmp_path):
    seen = []
    async with open_virtbackup(target=tmp_path, on_event=seen.append) as virtbackup:
        await virtbackup.list()
    assert not any(isinstance(event, StoreRequests) for event in seen)


def test_the_summary_has_the_sums():
    outcome = RunOutcome(lambda _event: None)
    assert outcome.summary([], None).requests == 0
    outcome.emit(MADE)
    outcome.emit(MADE)
    found = outcome.summary([], None)
    assert (found.requests, found.sent_bytes, found.received_bytes) == (24, 600, 40)


def test_they_are_put_into_words_by_verb():
    assert in_words(MADE) == "s3://backups: 12 requests (7 put, 5 get), 300 B sent, 20 B received"


def test_they_are_metrics_of_the_last_run():
    found = dict(samples_of("backup", [MADE], summary(), 1.0))
    labels = 'command="backup",target="s3://backups"'
    of_verbs = {
        key[1]: value for key, value in found.items() if key[0] == "virtbackup_run_store_requests"
    }
    assert of_verbs[f'{{{labels},verb="put"}}'] == 7
    # A run that lists nothing replaces the count of one that did.
    assert of_verbs[f'{{{labels},verb="list"}}'] == 0
    assert found["virtbackup_run_store_sent_bytes", f"{{{labels}}}"] == 300


@pytest.fixture
def site(tmp_path, object_server):
    return Site(tmp_path), new_location(object_server.endpoint)


async def test_stats_sums_the_runs_of_all_hosts_in_a_month(site):
    host, location = site
    config = host.configure()
    groups = {"all": replace(config.groups["all"], target=location)}
    config = replace(config, groups=groups)
    made = StoreRequests(str(location), 12, 300, 20, MADE.kinds)
    open_storage(location).put_new(".virtbackup-runs/0000000000-00000000000000aa", b"")
    now_s = host.runtime(config).now().timestamp()
    for age_days in (0, 10, 40):
        after = AfterRun(config, "backup", now_s=lambda age=age_days: now_s - age * 86400)
        after.tap(lambda _event: None)(made)
        warnings = []
        await after.conclude(with_id(summary(), run_id=str(age_days)), warnings.append)
        assert [one for one in warnings if isinstance(one, Warned)] == []
    found = await run_stats(host.runtime(config), StatsRequest())
    assert found.requests == (
        PastRequests(str(location), 30, 2, {"put": 14, "get": 10}, 600, 40),
    )  # fmt: skip
