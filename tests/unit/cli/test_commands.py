"""The commands as typed, against a target that virt-backup could have written; no libvirt."""

import json
import subprocess
import sys
from socket import gethostname

import pytest

DEFINITION = {
    "name": "20260701-030000_3_web",
    "domain_id": 3,
    "domain_name": "web",
    "domain_xml": "<domain type='kvm' id='3'><name>web</name></domain>",
    "disks": {"vda": "20260701-030000_3_web_vda.qcow2"},
    "version": "0.5.6",
    "date": 1782874800,
    "packager": {"type": "directory", "opts": {}},
}
CONFIG = """
groups:
  main:
    target: {target}
    hosts: ["web", "db"]
"""


@pytest.fixture
def command(tmp_path):
    target = tmp_path / "target"
    (target / "web").mkdir(parents=True)
    (target / "web" / f"{DEFINITION['name']}.json").write_text(json.dumps(DEFINITION))
    (target / "web" / DEFINITION["disks"]["vda"]).write_bytes(b"x" * 70000)
    config = tmp_path / "config.yml"
    config.write_text(CONFIG.format(target=target))

    def run(*arguments):
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(config), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    return run


@pytest.mark.parametrize("name", ["list", "ls"])
def test_list_shows_what_is_there(command, name):
    ended = command(name)
    assert ended.returncode == 0, ended.stderr
    head, columns, row, totals = ended.stdout.splitlines()
    assert head.startswith("main -> ")
    assert (columns.split()[0], row.split()[0]) == ("domain", "web")
    assert totals.startswith("1 domain, 1 backup, ")
    assert totals.endswith(" free")
    of_domain = command(name, "web").stdout.splitlines()
    assert of_domain[0] == "main: 1 domain, 1 backup"
    assert of_domain[2].split()[0] == "web"


def test_list_options_of_virt_backup(command):
    assert command("ls", "-s", "main").stdout == "main: 1 domain, 1 backup\n"
    assert f"{DEFINITION['name']}.json" in command("list", "--dom", "web").stdout
    assert command("list", "-D", "db").stdout == "main: 1 domain, 0 backups\n  db: 0 backups\n"
    unknown = command("list", "-D", "wep")
    assert (unknown.returncode, unknown.stdout) == (12, "")
    assert unknown.stderr.rstrip().endswith("did you mean 'web'?")


def test_list_json_is_an_object_a_backup_and_the_summary(command):
    lines = [json.loads(line) for line in command("list", "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["run_info", "backup", "target_space", "summary"]
    (info, backup, _, last) = lines
    assert (info["event"], info["command"], info["host"]) == ("run_info", "list", gethostname())
    assert (backup["domain"], backup["backup"]) == ("web", DEFINITION["name"])
    assert (last["ok"], last["run_id"]) == (True, info["run_id"])


def test_list_of_an_unknown_group_says_so(command):
    ended = command("list", "nope")
    assert ended.returncode == 12
    assert "nope" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_restore_writes_the_disk_and_says_that_it_could_not_verify(command, tmp_path):
    ended = command("restore", "main", "web", str(tmp_path / "restored"))
    assert ended.returncode == 0, ended.stderr
    restored = tmp_path / "restored" / DEFINITION["disks"]["vda"]
    assert "not verified" in ended.stdout
    assert restored.read_bytes() == b"x" * 70000


def test_restore_of_a_date_that_is_not_there(command, tmp_path):
    ended = command("restore", "--dat", "2020-01-01", "main", "web", str(tmp_path / "r"), "--json")
    assert ended.returncode == 12
    assert json.loads(ended.stdout.splitlines()[-1])["exit_code"] == 12


def test_a_configuration_that_is_not_there(command):
    ended = subprocess.run(
        [sys.executable, "-m", "virtbackup_async", "-c", "/nope.yml", "list", "--json"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    kinds = [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert kinds == ["run_info", "summary"]
    assert "/nope.yml" in ended.stderr
