"""`virtbackup config` as typed, in processes of its own."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[3]
OLD = "# old\ngroups:\n  a:\n    autostart: true\n    target: /x\n    compression: gz  # small\n"
NEW = (
    "# old\ngroups:\n  a:\n    autostart: true\n    target: /x\n    packager: tar    # small\n"
    "    packager_opts:\n      compression: gz\n"
)
WRONG = "threads: many\nqqq: 1\ngroups: {a: {hourly: x, autostart: true}}\n"


@pytest.fixture
def command(tmp_path):
    """Returns a function that runs `config` on a file of that content; `command.path` is it."""

    def run(*arguments, text=None):
        if text is not None:
            run.path.write_text(text)
        argv = [sys.executable, "-m", "virtbackup_async", "-c", run.path, "config", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    run.path = tmp_path / "config.yml"
    return run


def findings(output):
    lines = [json.loads(line) for line in output.splitlines()]
    return [
        (line["level"], line["subject"], line["message"], line["advice"]) for line in lines[1:-1]
    ]


def test_check_says_that_all_is_well(command):
    ended = command("check", text="groups: {a: {target: /x, autostart: false}}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split()[:2] == ["ok", f"{command.path}:"]


def test_check_tells_of_groups_that_no_run_starts_by_itself(command):
    """virt-backup 0.5.6 backed them up; a file of its must not be green and do nothing."""
    ended = command(
        "check", "--json", text="groups:\n  a: {target: /x, autostart: no}\n  b: {target: /x}\n"
    )
    ((level, subject, message, _),) = findings(ended.stdout)
    assert (ended.returncode, level, subject) == (0, "warning", f"{command.path}:3")
    assert message.startswith("groups.b: has no autostart key")
    assert command("check", "--strict", text="groups: {b: {target: /x}}").returncode == 2


def test_check_lists_problems_last_each_with_its_place(command):
    ended = command("check", text=WRONG)
    assert ended.returncode == 2
    *found, total = ended.stdout.splitlines()
    assert [line.split(": ")[0].split() for line in found] == [
        ["warning", f"{command.path}:2"],
        ["problem", f"{command.path}:1"],
        ["problem", f"{command.path}:3"],
    ]
    assert total == "2 problems, 1 warning, 3 findings"
    assert ended.stderr == f"virtbackup: {command.path}: 2 things to be changed.\n"


@pytest.mark.parametrize(
    ("group", "place", "level"),
    [
        ("pakager: zstd", "groups.a.pakager", "problem"),
        ("packager_opts: {compresion_lvl: 3}", "groups.a.packager_opts.compresion_lvl", "problem"),
        ("owner_of_this: me", "groups.a.owner_of_this", "warning"),
    ],
)
def test_a_key_that_looks_like_another_is_a_typo_and_no_relic(command, group, place, level):
    """A backup is made anyway, but with settings that nobody meant."""
    text = f"groups: {{a: {{target: /x, autostart: true, packager: zstd, {group}}}}}"
    if group.startswith("pakager"):
        text = text.replace("packager: zstd, ", "")
    ended = command("check", "--json", text=text)
    ((found, _, message, _),) = findings(ended.stdout)
    assert (found, ended.returncode) == (level, 2 if level == "problem" else 0)
    assert message.startswith(place)
    assert ("did you mean" in message) == (level == "problem")
    assert ended.stderr == "" or not ended.stderr.endswith("?.\n")


@pytest.mark.parametrize(("strict", "status"), [((), 0), (("--strict",), 2)])
def test_check_shows_the_yaml_to_write_and_strict_makes_it_an_error(command, strict, status):
    ended = command("check", *strict, text=OLD)
    assert ended.returncode == status
    shown = [line.strip() for line in ended.stdout.splitlines()]
    assert shown[1:5] == ["-> Write instead:", "packager: tar", "packager_opts:", "compression: gz"]


def test_check_json_is_a_finding_each(command):
    ended = command("check", "--json", text=OLD)
    assert findings(ended.stdout) == [
        (
            "warning",
            f"{command.path}:6",
            "groups.a.compression: compression of an old version",
            "Write instead:\npackager: tar\npackager_opts:\n  compression: gz",
        )
    ]
    assert json.loads(ended.stdout.splitlines()[-1])["ok"] is True


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [("a: [\n", ":2:1", "expected"), ("", "", "is empty"), ("[a]", ":1", "found no keys")],
)
def test_check_of_a_file_that_cannot_be_read_is_a_problem(command, text, place, said):
    ended = command("check", "--json", text=text)
    ((level, subject, message, _),) = findings(ended.stdout)
    assert (ended.returncode, level, subject) == (2, "problem", f"{command.path}{place}")
    assert said in message


def test_check_of_no_file(command):
    ended = command("check")
    assert ended.returncode == 2
    assert "cannot be read" in ended.stdout


def test_check_quiet_says_nothing_of_what_is_well(command):
    ended = command("check", "-q", text="groups: {a: {target: /x, autostart: false}}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_migrate_prints_the_file_and_changes_nothing(command):
    ended = command("migrate", text=OLD)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, NEW, "")
    assert command.path.read_text() == OLD
    assert command("migrate", text=NEW).stdout == NEW


def test_migrate_prints_utf8_whatever_the_locale(command, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "1")
    command.path.write_bytes("# Straße\ngroups: {a: {target: /x}}\n".encode())
    argv = [sys.executable, "-m", "virtbackup_async", "-c", command.path, "config", "migrate"]
    ended = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert ended.stdout == command.path.read_bytes()


def test_migrate_in_place_keeps_the_old_file_and_its_mode(command):
    command.path.write_text(OLD)
    command.path.chmod(0o640)
    link = command.path.with_name("link.yml")
    link.symlink_to(command.path)
    backup = command.path.with_name("config.yml.bak")
    file, command.path = command.path, link
    ended = command("migrate", "--in-place", "--json")
    assert ended.returncode == 0, ended.stderr
    assert findings(ended.stdout) == [
        ("info", str(link), "groups.a.compression replaced by packager and packager_opts", None)
    ]
    assert (file.read_text(), backup.read_text()) == (NEW, OLD)
    assert link.is_symlink()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, backup)] == [0o640] * 2
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "config.yml",
        "config.yml.bak",
        "link.yml",
    ]


def test_migrate_in_place_twice_changes_nothing(command):
    assert command("migrate", "--in-place", text=OLD).returncode == 0
    backup = command.path.with_name("config.yml.bak")
    again = command("migrate", "--in-place")
    assert (again.returncode, backup.read_text()) == (0, OLD)
    assert "nothing was changed" in again.stdout


def test_migrate_overwrites_nothing(command):
    backup = command.path.with_name("config.yml.bak")
    backup.write_text("precious")
    for arguments in (("--in-place",), ("-o", str(backup))):
        ended = command("migrate", *arguments, text=OLD)
        assert ended.returncode == 22
        assert "config.yml.bak" in ended.stderr
        assert (command.path.read_text(), backup.read_text()) == (OLD, "precious")


def test_migrate_to_a_new_file(command, tmp_path):
    ended = command("migrate", "-o", str(tmp_path / "new.yml"), text=OLD)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "new.yml").read_text() == NEW
    assert stat.S_IMODE((tmp_path / "new.yml").stat().st_mode) == 0o600


def test_migrate_of_a_wrong_file_writes_nothing(command, tmp_path):
    ended = command("migrate", "-o", str(tmp_path / "new.yml"), text=WRONG)
    assert ended.returncode == 2
    assert not (tmp_path / "new.yml").exists()


@pytest.mark.parametrize("arguments", [("--json",), ("-o", "x", "--in-place")])
def test_migrate_refuses_what_does_not_go_together(command, arguments):
    assert command("migrate", *arguments, text=OLD).returncode == 2


def test_schema_is_printed(command):
    schema = json.loads(command("schema").stdout)
    assert Draft202012Validator(schema).is_valid(yaml.safe_load((ROOT / "config.yml").read_text()))


def test_only_migrate_imports_ruamel():
    program = (
        "import sys, importlib\n"
        "for name in ('config', 'config_check', 'config_schema', 'listing', 'backup'):\n"
        "    importlib.import_module(f'virtbackup_async.cli.commands.{name}')\n"
        "print('ruamel.yaml' in sys.modules)"
    )
    argv = [sys.executable, "-c", program]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout == "False\n", ended.stderr
