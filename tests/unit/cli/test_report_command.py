"""``report`` as typed, and the page after each run; no libvirt."""

import json
import subprocess
import sys

import pytest

from fakes.json_server import json_server
from fakes.recorded_run import summary
from virtbackup_async.catalog.history import read_history
from virtbackup_async.cli.page_after_run import write_page_after_run
from virtbackup_async.config.loading import load_config
from virtbackup_async.model.storage_location import StorageLocation

# Apprise's own import, on the Python that still has that module.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")

CONFIG = """
uri: qemu+unix:///session?socket=/nonexistent/libvirt-sock
groups:
  main:
    target: %s
    hosts: ["web", "db"]
"""
NAME = "20260701-030000_3_web"
DEFINITION = {
    "name": NAME, "domain_id": 3, "domain_name": "web", "domain_xml": "<domain/>",
    "disks": {"vda": f"{NAME}_vda.raw"}, "version": "0.5.6", "date": 1782874800,
    "packager": {"type": "directory", "opts": {}},
}  # fmt: skip


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "target" / "web"
    directory.mkdir(parents=True)
    (directory / f"{NAME}.json").write_text(json.dumps(DEFINITION))
    (directory / f"{NAME}_vda.raw").write_bytes(b"x" * 7000)
    (tmp_path / "config.yml").write_text(CONFIG % directory.parent)
    return directory.parent


@pytest.fixture
def page(tmp_path):
    return tmp_path / "index.html"


@pytest.fixture
def command(tmp_path):
    def run(*arguments):
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(tmp_path / "config.yml")]
        return subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, timeout=30, check=False
        )

    return run


def test_the_page_is_written_and_its_first_sentence_printed(command, target, page):
    ended = command("report", "--html", str(page))
    sentence = "2 of 2 guests cannot be restored to last night: db and web."
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{sentence}\n{page}\n"
    html = page.read_text()
    assert sentence in html
    assert "libvirt did not answer" in html
    assert page.stat().st_mode & 0o777 == 0o600


def test_the_event_says_how_many_can_be_restored(command, target, page):
    ended = command("report", "--html", str(page), "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    (event,) = (line for line in lines if line["event"] == "report_written")
    assert event["file"] == str(page)
    assert (event["standing"], event["guests"], event["restorable"]) == ("bad", 2, 0)
    assert event["length_bytes"] == page.stat().st_size


def test_a_target_that_is_away_is_on_the_page_and_in_the_exit_code(command, target, page):
    target.rename(target.with_name("away"))
    ended = command("report", "--html", str(page))
    assert ended.returncode == 22
    assert ended.stdout.startswith(f"The target {target} cannot be read: whether 2 guests ")
    assert f"The target {target} cannot be read" in page.read_text()


def test_an_empty_configuration_is_no_good_news(command, tmp_path, page):
    (tmp_path / "config.yml").write_text(
        "uri: qemu+unix:///session?socket=/nonexistent/libvirt-sock\ngroups: {}\n"
    )
    ended = command("report", "--html", str(page))
    assert ended.stdout.startswith("Nothing is backed up: the configuration has no groups.")
    assert "Nothing is backed up" in page.read_text()


def test_what_is_no_file_is_refused(command, target):
    ended = command("report", "--html", "/dev/null")
    assert ended.returncode == 22
    assert "/dev/null is no regular file" in ended.stderr


@pytest.fixture
def configured(tmp_path, target, page):
    def configured(more=""):
        path = tmp_path / "config.yml"
        path.write_text(f"{CONFIG % target}{more}")
        path.chmod(0o600)
        return load_config(path)

    return configured


def test_each_run_writes_the_page_and_its_line(configured, command, target, page, tmp_path):
    configured(f"report: {{html: {page}, mode: '0644'}}")
    (target / ".virtbackup-history").touch()
    ended = command("verify", "--quick")
    assert ended.returncode == 0, ended.stderr
    assert "Guests, the worst first" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o644


async def test_the_run_itself_is_in_the_history_of_the_page(configured, command, target, page):
    configured(f"report: {{html: {page}}}")
    (target / ".virtbackup-history").touch()
    command("verify")
    (run,) = (await read_history(StorageLocation.of(target))).runs
    assert (run.command, run.domains[0].outcome) == ("verify", "verified")


async def written(config, code=0):
    warnings = []
    await write_page_after_run(config, summary(code), warnings.append)
    return [warning.message for warning in warnings]


async def test_no_page_is_written_where_none_is_wanted_or_after_a_signal(configured, page):
    assert await written(configured()) == []
    assert await written(configured(f"report: {{html: {page}}}"), 130) == []
    assert not page.exists()


async def test_the_metrics_say_what_the_page_says(configured, page, tmp_path):
    metrics = tmp_path / "virtbackup.prom"
    config = configured(f"report: {{html: {page}}}\nmetrics_textfile: {metrics}")
    assert await written(config) == []
    assert 'virtbackup_guest_restorable{group="main",domain="web"} 0\n' in metrics.read_text()


async def test_a_page_that_cannot_be_written_is_a_warning(configured, tmp_path):
    (warning,) = await written(configured(f"report: {{html: {tmp_path}/no/index.html}}"))
    assert warning.startswith("the page was not written: ")


@pytest.fixture
def server():
    with json_server() as found:
        yield found


async def test_the_page_is_mailed_once_a_week(configured, page, server):
    url, posted = server
    config = configured(f"report: {{html: {page}, mail: weekly}}\nnotify: {{urls: ['{url}']}}")
    assert await written(config) == []
    assert await written(config) == []
    (message,) = posted
    assert "] " in message["title"]
    assert message["title"].endswith(": 0 ok, 2 FAILED (db and web)")
    assert message["message"].startswith("2 of 2 guests cannot be restored")
    (attached,) = message["attachments"]
    assert attached["filename"] == "index.html"


async def test_a_mail_that_is_refused_is_tried_again(configured, page, server):
    url, posted = server
    config = configured(f"report: {{html: {page}, mail: weekly}}\nnotify: {{urls: ['{url}/no']}}")
    for _ in range(2):
        (warning,) = await written(config)
        assert warning.startswith("the page was not mailed: 1 of 1 notifications")
    assert len(posted) == 2


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("report: {mail: weekly}", "nothing is reported: html, the path of a file, is missing"),
        ("report: {html: /x/y.html, mail: daily}", "nobody gets it: notify has no urls"),
    ],
)
def test_settings_that_do_nothing_are_told_of(configured, text, warning):
    assert any(warning in line for line in configured(text).warnings)
