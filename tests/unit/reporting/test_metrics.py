"""The metrics' file: what a run writes, what it leaves of earlier runs, and who can read it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.recorded_run import GIB, HOSTILE, done, failed, summary
from virtbackup_async.config.schema import Config
from virtbackup_async.events import VerifyDone, VerifyFailed
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.metrics import HELP, dumps, loads, samples_of


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
    families = text_string_to_metric_families(dumps(written("backup", done(), good)))
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
