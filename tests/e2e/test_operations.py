"""A night's run of the installed command: hooks, metrics, log; what a signal leaves of them."""

import json

import pytest
import yaml
from command import virtbackup, write_config

from lab.disks import DiskSpec
from lab.domains import define


@pytest.fixture
def domain(daemon):
    domain = define(daemon, "nightly", [DiskSpec("vda", "raw", fs=None)], agent=False)
    yield domain
    domain.undefine()


@pytest.fixture
def config(daemon, domain, tmp_path):
    path = write_config(tmp_path, daemon.uri, [domain.name, "gone"], packager="directory")
    settings = yaml.safe_load(path.read_text())
    settings |= {
        "metrics_textfile": str(tmp_path / "virtbackup.prom"),
        "log": {"file": str(tmp_path / "log.jsonl")},
        "hooks": {"after": f"cat > {tmp_path}/report; echo spoken >&2"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_night_is_told_everywhere(config, tmp_path):
    done = virtbackup("-c", config, "backup", "-v")
    assert done.returncode == 3, done.stderr
    assert "hook after: spoken" in done.stderr
    report = json.loads((tmp_path / "report").read_text())
    assert [len(report[key]) for key in ("done", "failed")] == [1, 1]
    metrics = (tmp_path / "virtbackup.prom").read_text()
    assert 'virtbackup_backup_success{group="all",domain="nightly"} 1' in metrics
    assert 'virtbackup_backup_success{group="all",domain="gone"} 0' in metrics
    assert 'virtbackup_run_exit_code{command="backup"} 3' in metrics

    assert virtbackup("-c", config, "verify").returncode == 0
    metrics = (tmp_path / "virtbackup.prom").read_text()
    assert 'virtbackup_verify_success{group="all",domain="nightly"} 1' in metrics
    assert 'virtbackup_backup_success{group="all",domain="gone"} 0' in metrics

    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    kinds = [line["event"] for line in logged]
    assert {"backup_done", "backup_failed", "verify_done", "log"} <= set(kinds)
    assert kinds.count("summary") == 2
    assert "disk_progress" not in kinds


def test_a_night_leaves_a_page_and_a_line_of_history(config, tmp_path):
    settings = yaml.safe_load(config.read_text())
    page = tmp_path / "index.html"
    config.write_text(yaml.safe_dump({**settings, "report": {"html": str(page)}}))
    done = virtbackup("-c", config, "backup")
    assert done.returncode == 3
    assert "the page was not written" not in done.stderr
    html = page.read_text()
    assert "1 of 2 guests cannot be restored to last night: gone." in html
    assert "its group names it, and libvirt knows no such domain" in html
    assert "nightly" in html.partition('id="night"')[2]
    (history,) = (tmp_path / "target").glob(".virtbackup-history")
    (run,) = (json.loads(line) for line in history.read_text().splitlines())
    assert (run["command"], run["exit_code"]) == ("backup", 3)
    assert run["free_bytes"] > 0
    outcomes = {domain["domain"]: domain for domain in run["domains"]}
    assert [outcomes[name]["outcome"] for name in ("gone", "nightly")] == ["failed", "done"]
    phases = dict(outcomes["nightly"]["phases"])
    assert {"preparing", "copying", "finishing"} <= phases.keys()
    assert sorted(phases.values()) == list(phases.values())

    assert virtbackup("-c", config, "verify").returncode == 0
    assert len(history.read_text().splitlines()) == 2
    assert "1 good" in page.read_text()


def test_the_target_is_enough_once_the_host_is_gone(config, tmp_path, monkeypatch):
    assert virtbackup("-c", config, "backup").returncode == 3
    config.unlink()
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+unix:///system?socket=/nonexistent")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    alone = ("--target", tmp_path / "target")

    shown = virtbackup("status", *alone)
    assert shown.returncode == 0, shown.stderr
    assert f"The only guest in {alone[1]}, nightly, can be restored" in shown.stdout
    assert "last      backup" in shown.stdout
    young = virtbackup("check", *alone, "--max-age", "26h")
    assert (young.returncode, young.stdout[:15]) == (0, "VIRTBACKUP OK -")
    assert virtbackup("check", *alone).returncode == 3
    written = virtbackup("report", *alone, "--html", tmp_path / "page.html")
    assert written.returncode == 0, written.stderr
    assert "nightly, can be restored" in (tmp_path / "page.html").read_text()


def test_the_doctor_ends_with_3_for_a_problem(config):
    done = virtbackup("-c", config, "doctor", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    problems = [line for line in found if line.get("level") == "problem"]
    assert [line["check"] for line in problems] == ["pattern"]
    assert (done.returncode, found[-1]["exit_code"]) == (3, 3)
