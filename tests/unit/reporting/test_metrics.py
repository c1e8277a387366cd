"""The metrics' file: what a run writes, what it leaves of earlier runs, and who can read it."""

from datetime import UTC

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.overview_facts import GIB as BYTES
from fakes.overview_facts import NIGHT, backup, facts, guest, target
from fakes.overview_site import site_facts
from fakes.recorded_run import GIB, HOSTILE, done, failed, summary
from virtbackup_async.config.schema import Config
from virtbackup_async.events import RequestCount, StoreRequests, VerifyDone, VerifyFailed
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.metrics import (
    HELP,
    OVERVIEW_HELP,
    dumps,
    loads,
    samples_of,
    samples_of_overview,
)
from virtbackup_async.reporting.metrics_file import update_metrics
from virtbackup_async.reporting.overview.build import build_overview


def site_overview():
    return build_overview(site_facts(), UTC)


def written(command="backup", *events, code=0):
    return dict(samples_of(command, events, summary(code), 1000.5))


def parsed(text):
    """The samples as Prometheus's own parser reads them: name, then label values, to value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_run_is_written_as_prometheus_reads_it():
    found = parsed(dumps(written("backup", done("web"), failed("db"), code=3)))
    assert found["virtbackup_backup_success", "main", "web"] == 1
    assert found["virtbackup_backup_last_success_timestamp_seconds", "main", "web"] == 1000.5
    assert found["virtbackup_backup_duration_seconds", "main", "web"] == 52
    assert found["virtbackup_backup_data_bytes", "main", "web"] == 4 * GIB
    assert found["virtbackup_backup_stored_bytes", "main", "web"] == GIB
    assert found["virtbackup_backup_success", "main", "db"] == 0
    assert ("virtbackup_backup_last_success_timestamp_seconds", "main", "db") not in found
    assert found["virtbackup_run_exit_code", "backup"] == 3
    assert found["virtbackup_run_timestamp_seconds", "backup"] == 1000.5


def test_verify_has_metrics_of_its_own():
    good = VerifyDone("main", "web", "b", "/d", digests=True, data_bytes=1, duration_s=1)
    found = parsed(dumps(written("verify", good, VerifyFailed("main", "db", "b", "bad", 13))))
    assert found["virtbackup_verify_success", "main", "web"] == 1
    assert found["virtbackup_verify_success", "main", "db"] == 0


def test_each_metric_says_what_it_is():
    good = VerifyDone("main", "web", "b", "/d", digests=True, data_bytes=1, duration_s=1)
    made = StoreRequests("s3://b", 1, 2, 3, (RequestCount("put", "packs", 1, 2, 3),))
    found = written("backup", done(), good, made) | dict(samples_of_overview(site_overview()))
    families = text_string_to_metric_families(dumps(found))
    assert {family.name: family.documentation for family in families} == dict(HELP)


@pytest.mark.parametrize("name", [HOSTILE, 'a"b', "a\\b", "a\nb", "a} 5", "ü 日本"])
def test_names_stay_inside_their_quotes_and_survive(name):
    text = dumps(written("backup", done(name)))
    assert parsed(text)["virtbackup_backup_success", "main", name] == 1
    assert loads(text) == written("backup", done(name))


def test_what_is_not_ours_is_left_out():
    assert loads('# HELP x y\nother{a="b"} 1\nvirtbackup_run_exit_code{} many\n\nx') == {}


async def test_a_later_run_keeps_what_earlier_ones_wrote_of_others(tmp_path):
    path = tmp_path / "virtbackup.prom"

    async def run(*events):
        warnings = []
        after_run = AfterRun(Config(path=tmp_path, metrics_textfile=path), "backup")
        for event in events:
            after_run.tap(warnings.append)(event)
        warnings.clear()
        await after_run.conclude(summary(), warnings.append)
        assert warnings == []
        return parsed(path.read_text())

    await run(done("web"), done("db"))
    found = await run(failed("db"))
    assert found["virtbackup_backup_success", "main", "web"] == 1
    assert found["virtbackup_backup_success", "main", "db"] == 0
    # The last success of the domain is still known: its age is what an alert is about.
    assert ("virtbackup_backup_last_success_timestamp_seconds", "main", "db") in found
    assert path.stat().st_mode & 0o777 == 0o644
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


async def test_metrics_that_cannot_be_written_are_a_warning(tmp_path):
    path = tmp_path / "missing" / "virtbackup.prom"
    warnings = []
    after_run = AfterRun(Config(path=tmp_path, metrics_textfile=path), "backup")
    await after_run.conclude(summary(), warnings.append)
    (warning,) = warnings
    assert str(path) in warning.message


def test_the_overview_has_metrics_of_guests_and_targets():
    away = target("/mnt/away", groups=("offsite",), error="gone")
    overview = build_overview(
        facts(
            guest("web"),
            guest("db", [backup(3)]),
            guest("new", []),
            guest("old", [backup(99)], is_known=False),
            targets=[target(), away],
        ),
        UTC,
    )
    found = parsed(dumps(dict(samples_of_overview(overview))))
    restorable = {key[2]: value for key, value in found.items() if key[0].endswith("restorable")}
    assert restorable == {"web": 1, "db": 0, "new": 0}
    newest = "virtbackup_guest_newest_good_timestamp_seconds"
    assert found[newest, "production", "web"] == NIGHT
    assert (newest, "production", "new") not in found
    assert found["virtbackup_guest_max_age_seconds", "production", "web"] == 26 * 3600
    assert found["virtbackup_target_readable", "/mnt/backups"] == 1
    assert found["virtbackup_target_readable", "/mnt/away"] == 0
    assert found["virtbackup_target_free_bytes", "/mnt/backups"] == 600 * BYTES
    assert ("virtbackup_target_free_bytes", "/mnt/away") not in found


async def test_what_does_not_exist_any_more_leaves_the_overview_and_nothing_else(tmp_path):
    path = tmp_path / "virtbackup.prom"
    both = build_overview(facts(guest("web"), guest("db")), UTC)
    one = build_overview(facts(guest("web")), UTC)
    await update_metrics(path, written("backup", done("db")).items())
    for overview in (both, one):
        await update_metrics(path, samples_of_overview(overview), replaced=OVERVIEW_HELP)
    found = parsed(path.read_text())
    assert ("virtbackup_guest_restorable", "production", "db") not in found
    assert found["virtbackup_guest_restorable", "production", "web"] == 1
    assert found["virtbackup_backup_success", "main", "db"] == 1
