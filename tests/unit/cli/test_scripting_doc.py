"""The scripts of docs/how-to/scripting.md, run with jq on what the program really prints."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fakes.stored_backup import StoredBackup
from virtbackup_async.model.backup import Packager

ROOT = Path(__file__).resolve().parents[3]
DOC = ROOT / "docs" / "how-to" / "scripting.md"
BLOCK = re.compile(r"<!-- run by \S+: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
SCRIPTS = dict(BLOCK.findall(DOC.read_text()))
HOUR_S = 3600
DIRECTORY = Packager("directory")
# libvirt's own driver for tests takes its domains from a file; no disk of them can be backed up.
NODE = "<node>{}</node>"
DOMAIN = "<domain type='test'><name>{}</name><memory>1</memory><os><type>hvm</type></os></domain>"


class Host:
    """A configuration with the group ``main``, and the domains that libvirt has."""

    def __init__(self, root, *domains):
        self.root = root
        self.target = root / "target"
        self.target.mkdir(mode=0o700)
        (root / "node.xml").write_text(NODE.format("".join(map(DOMAIN.format, domains))))
        group = {"target": str(self.target), "autostart": True, "hosts": ["r:.*"]}
        config = {"uri": f"test://{root}/node.xml", "groups": {"main": group}}
        (root / "config.yml").write_text(yaml.safe_dump(config))

    async def store(self, domain, age_h):
        """Store a backup of that age, and return it."""
        backup = StoredBackup(self.target, DIRECTORY, domain, int(time.time()) - age_h * HOUR_S)
        return await backup.make(self.root / f"{domain}.raw")

    def virtbackup(self, *words):
        self._run([sys.executable, "-m", "virtbackup_async", *words])

    def run(self, script):
        """Run a script of the page; return its exit code and the lines that it prints."""
        ended = self._run(["bash", "-c", SCRIPTS[script]])
        assert "jq: error" not in ended.stderr
        return ended.returncode, ended.stdout.splitlines()

    def _run(self, argv):
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "VIRTBACKUP_CONFIG": str(self.root / "config.yml"),
            "VIRTBACKUP_STATE_DIRECTORY": str(self.root / "state"),
            "XDG_STATE_HOME": str(self.root / "state"),
        }
        return subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=60, check=False
        )


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_of_the_page_is_run_here(script):
    assert script in {"newest", "overdue", "night"}


async def test_the_newest_good_backup_of_each_domain(tmp_path):
    host = Host(tmp_path, "web", "db")
    await host.store("web", 50)
    good = await host.store("web", 26)
    (await host.store("web", 2)).flip()
    host.virtbackup("verify", "web")
    await host.store("web", 1)  # not verified yet
    await host.store("db", 1)
    code, lines = host.run("newest")
    assert [line.split("\t")[0:4:3] for line in lines] == [["main", good.name]]
    assert lines[0].split("\t")[1] == "web"
    assert code == 0


async def test_domains_without_a_young_backup_are_named(tmp_path):
    host = Host(tmp_path, "web", "db", "mail", "new", "bad")
    await host.store("web", 50)
    await host.store("web", 2)
    await host.store("db", 27)
    await host.store("mail", -3)  # dated in the future: the clock was wrong
    (await host.store("bad", 1)).path.write_text("{")
    code, (line,) = host.run("overdue")
    late = "main/bad has none, main/db 27 h old, main/mail has none, main/new has none"
    assert (code, line) == (2, f"CRITICAL: {late}")


async def test_a_damaged_backup_is_none(tmp_path):
    host = Host(tmp_path, "web")
    await host.store("web", 30)
    (await host.store("web", 1)).flip()
    host.virtbackup("verify")
    assert host.run("overdue") == (2, ["CRITICAL: main/web 30 h old"])


async def test_all_well(tmp_path):
    host = Host(tmp_path, "web", "db")
    await host.store("web", 1)
    await host.store("db", 25)
    assert host.run("overdue") == (0, ["OK: 2 domains"])


def test_a_target_that_is_not_there_is_no_answer(tmp_path):
    host = Host(tmp_path, "web")
    host.target.rmdir()
    code, (line,) = host.run("overdue")
    assert code == 3
    assert line.startswith("UNKNOWN: ")
    assert str(host.target) in line


def test_no_domain_is_no_good_news(tmp_path):
    assert Host(tmp_path).run("overdue") == (3, ["UNKNOWN: there is no domain"])


def test_the_lines_of_a_night(tmp_path):
    host = Host(tmp_path, "web")
    _, (run, failed, total, *rest) = host.run("night")
    assert re.fullmatch(r"\S+, backup, run \S+", run)
    assert failed.startswith("main/web failed (disk_not_found): ")
    assert total == "0 done, 1 failed, 0 warnings"
    assert rest == ["backups_failed: 1 of 1 backups failed"]


def test_domains_that_were_not_begun_are_named(tmp_path):
    host = Host(tmp_path, "web", "db")
    config = yaml.safe_load((tmp_path / "config.yml").read_text())
    stop = {"hooks": {"before": "kill -INT $PPID"}}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config | stop))
    _, lines = host.run("night")
    assert "not started: db, web" in lines
