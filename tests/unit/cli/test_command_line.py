"""The command line as typed: real processes, because imports and exit codes are what is tested."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from virtbackup_async import __version__
from virtbackup_async.cli.lazy_commands import Command

HEAVY = ("libvirt", "lxml", "zstandard", "anyio", "yaml", "asyncio", "msgspec")
SEE_HELP = "Run 'virtbackup --help' to see what there is."


def virtbackup(*arguments):
    argv = [sys.executable, "-m", "virtbackup_async", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def loaded_by(arguments, modules):
    """Run a command; return which of the modules it has loaded in the end, and what it printed."""
    program = (
        "import sys; from virtbackup_async.cli.main import main\n"
        f"sys.argv = ['virtbackup', *{arguments!r}]\n"
        "try: main()\n"
        f"finally: print([name for name in {modules!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    return ended.stderr.splitlines()[-1], ended.stdout


def test_help_imports_nothing_that_the_work_needs():
    loaded, out = loaded_by(["--help"], HEAVY)
    assert "restore" in out
    assert loaded == "[]"


def test_json_does_without_rich():
    for command in (["list"], ["backup"], ["doctor"]):
        assert loaded_by(["-c", "/none", *command, "--json"], ["rich"])[0] == "[]"
    assert loaded_by(["-c", "/none", "list"], ["rich"])[0] == "['rich']"


def test_help_of_a_command_is_its_help():
    assert virtbackup("help").stdout == virtbackup("--help").stdout
    assert (
        virtbackup("help", "config", "check").stdout
        == virtbackup("config", "check", "--help").stdout
    )
    assert virtbackup("help", "bak").stdout.startswith("Usage: virtbackup backup ")
    for words, said in ((["bakup"], "did you mean 'backup'?"), (["list", "x"], "no command 'x'")):
        ended = virtbackup("help", *words)
        assert ended.returncode == 2
        assert said in ended.stderr


def test_options_are_taken_before_and_after_the_command(tmp_path):
    config = tmp_path / "own.yml"
    config.write_text(f"groups:\n  main: {{target: {tmp_path}, hosts: [web]}}\n")
    before = virtbackup("-q", "-v", "-c", str(config), "list")
    after = virtbackup("list", "-c", str(config), "-q", "-v")
    assert (before.returncode, before.stdout) == (after.returncode, after.stdout)
    assert (after.returncode, after.stdout) == (0, "no backups\n")
    both = virtbackup("-c", "/none", "list", "-c", str(config))
    assert both.stdout == after.stdout, "the last one counts"
    clash = virtbackup("list", "-c", str(config), "--target", str(tmp_path))
    assert "-c and --target exclude each other" in clash.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--hel",)])
def test_help_ends_with_the_exit_statuses(arguments):
    ended = virtbackup(*arguments)
    assert ended.returncode == 0
    assert "128+N" in ended.stdout[ended.stdout.index("Exit status") :]


def test_no_arguments_is_help_and_not_success():
    ended = virtbackup()
    assert (ended.returncode, ended.stderr) == (2, "")
    assert ended.stdout == virtbackup("--help").stdout


@pytest.mark.parametrize("arguments", [(), ("--help",), ("list", "--help")])
def test_a_help_that_cannot_be_written_is_no_traceback(arguments):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "virtbackup_async", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode in {1, 2}
    assert "Traceback" not in ended.stderr


def test_version():
    assert virtbackup("--version").stdout == f"virtbackup {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), f"no such command 'nope'. {SEE_HELP}"),
        (("bakup",), f"no such command 'bakup', did you mean 'backup'? {SEE_HELP}"),
        (("backups",), f"no such command 'backups', did you mean 'backup'? {SEE_HELP}"),
        (
            ("--confg",),
            f"no such option '--confg'. Did you mean '--config'? {SEE_HELP}",
        ),
        (("--nope",), f"no such option '--nope'. {SEE_HELP}"),
        (
            ("completion",),
            (
                "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish."
                " Run 'virtbackup completion --help' to see what there is."
            ),
        ),
    ],
)
def test_a_usage_error_is_one_line_and_2(arguments, said):
    ended = virtbackup(*arguments)
    assert ended.returncode == 2
    assert ended.stderr == f"virtbackup: {said}\n"
    assert ended.stdout == ""


def test_a_usage_error_is_a_summary_when_json_was_asked_for():
    ended = virtbackup("nope", "--json")
    last = json.loads(ended.stdout)
    assert (last["event"], last["ok"], last["exit_code"]) == ("summary", False, 2)
    assert last["error_code"] == "config"
    assert "nope" in last["error"]
    assert "--json" not in virtbackup("--", "nope").stdout


@click.command("probe", cls=Command)
@click.option("--date")
@click.option("--domain", multiple=True)
@click.option("--data-only", "data_only", is_flag=True)
@click.argument("words", nargs=-1)
def probe(**found):
    return found


def parsed(*arguments):
    return probe.main(list(arguments), standalone_mode=False)


def test_long_options_may_be_cut_while_they_are_unique():
    assert parsed("--date", "x")["date"] == "x"
    assert parsed("--dom", "a", "--domai=b")["domain"] == ("a", "b")
    assert parsed("--data")["data_only"] is True


def test_an_option_cut_too_short_is_refused():
    with pytest.raises(click.UsageError, match="--dat"):
        parsed("--dat", "x")


def test_after_two_dashes_nothing_is_an_option():
    assert parsed("--", "--dom", "a")["words"] == ("--dom", "a")
