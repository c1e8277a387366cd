"""Notifications, by the real Apprise to a real server on this machine."""

import subprocess
import sys

import pytest

from fakes.json_server import json_server
from fakes.recorded_run import summary
from virtbackup_async.config.schema import Config, NotifySettings
from virtbackup_async.events import Summary
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.notification import MISSING, body

# Apprise's own import, on the Python that still has that module.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")


@pytest.fixture
def server():
    with json_server() as found:
        yield found


async def concluded(tmp_path, urls, on, code):
    warnings = []
    config = Config(path=tmp_path, notify=NotifySettings(tuple(urls), on))
    await AfterRun(config, "backup").conclude(summary(code), warnings.append)
    return [warning.message for warning in warnings]


@pytest.mark.parametrize(
    ("on", "code", "sent"),
    [("failure", 3, 1), ("failure", 0, 0), ("always", 0, 1), ("always", 3, 1)],
)
async def test_who_is_told_when(server, tmp_path, on, code, sent):
    url, posted = server
    assert await concluded(tmp_path, [url], on, code) == []
    assert len(posted) == sent
    for message in posted:
        assert message["title"].startswith(f"virtbackup backup {'failed' if code else 'done'} on ")
        assert "web" in message["message"]


async def test_one_that_cannot_be_told_is_a_warning_without_its_url(server, tmp_path):
    url, posted = server
    said = await concluded(tmp_path, [f"{url}/no/hunter2", url, "nonsense"], "always", 0)
    assert said == ["2 of 3 notifications could not be sent: check `notify.urls`"]
    assert len(posted) == 2


def test_without_the_library_one_warning_says_what_to_install():
    program = (
        "import sys, anyio; sys.modules['apprise'] = None\n"
        "from virtbackup_async.reporting.notification import notify\n"
        "from virtbackup_async.config.schema import NotifySettings\n"
        "from virtbackup_async.events import Summary\n"
        "bad = Summary(False, (), (), 3)\n"
        "print(anyio.run(notify, NotifySettings(('json://x',)), 't', bad))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout.strip() == MISSING, ended.stderr
    assert "pip install" in MISSING


def test_the_body_says_what_the_run_came_to():
    assert body(Summary(False, ("web",), ("db", "x"), 3, "2 of 3 backups failed")).splitlines() == [
        "2 of 3 backups failed",
        "done: web",
        "failed: db, x",
    ]
    assert body(Summary(True, (), (), 0)) == "nothing to do"
