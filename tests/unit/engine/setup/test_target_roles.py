"""engine/setup/target_roles.py, `config protect`: what a target needs, in its own language."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from virtbackup_async.engine.setup.target_roles import role_lines
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.storage_location import StorageLocation

KEYS = ("ssh-ed25519 AAAAw root@host1", "ssh-ed25519 AAAAk root@keeper")


def lines_of(url, quota=None):
    return role_lines(StorageLocation.of(url), quota, KEYS)


def commands(lines):
    """The forced commands, as sshd and its shell read them, and the keys."""
    found = []
    for line in lines:
        if line.startswith("restrict"):
            quoted = re.fullmatch(r'restrict,command="((?:[^"\\]|\\.)*)" (.*)', line)
            found.append((shlex.split(quoted[1].replace('\\"', '"')), quoted[2]))
    return found


def test_each_key_has_its_command():
    lines = lines_of("ssh://backup@nas:2222/srv/backups", "2T")
    (writer, writer_key), (keeper, keeper_key) = commands(lines)
    assert writer == (
        ["virtbackup", "store-server", "--append-only", "--quota", "2T", "--", "/srv/backups"]
    )
    assert keeper == ["virtbackup", "store-server", "--", "/srv/backups"]
    assert (writer_key, keeper_key) == KEYS
    assert "~backup/.ssh/authorized_keys on nas," in lines[0]


@pytest.mark.parametrize("directory", ["/it's", "/a b", '/a"b', "/$HOME/`x`", "/{host}/{writer}"])
def test_a_directory_is_one_word_whatever_its_name(directory):
    for command, _ in commands(lines_of(f"ssh://nas{directory}")):
        assert command[-1] == directory


def policies(lines):
    return [json.loads(line) for line in lines if line.startswith("{")]


def allows(policy, action, resource):
    """Whether a policy lets somebody do something without a condition."""

    def fits(pattern, value):
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), value) is not None

    effects = set()
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        actions = [actions] if isinstance(actions, str) else actions
        resources = [resources] if isinstance(resources, str) else resources
        if action in actions and any(fits(each, resource) for each in resources):
            effects.add(statement["Effect"])
    return effects == {"Allow"}


@pytest.mark.parametrize(("url", "below"), [("s3://b", "b"), ("s3://b/p/q", "b/p/q")])
def test_a_writer_adds_and_removes_leases_alone(url, below):
    aws, others, keeper, lifecycle = policies(lines_of(url))
    assert below.partition("/")[2] == lifecycle["Rules"][0]["Filter"]["Prefix"].rstrip("/")
    arn = f"arn:aws:s3:::{below}/"
    internal = f"{arn}.virtbackup-repository/"
    for policy in (aws, others):
        assert allows(policy, "s3:GetObject", f"{arn}web/a.json")
        assert allows(policy, "s3:PutObject", f"{arn}web/a_vda.raw.map")
        assert allows(policy, "s3:DeleteObject", f"{internal}leases/{'a' * 24}")
        for name in ("packs/aa/a.pack", "repository", "index/a-1.index", "condemned"):
            assert not allows(policy, "s3:DeleteObject", f"{internal}{name}")
        assert not allows(policy, "s3:DeleteObject", f"{arn}web/a.json")
        for name in (f"{internal}condemned", f"{internal}damaged", f"{arn}web/a.json.removed"):
            assert not allows(policy, "s3:PutObject", name)
        assert not any("Version" in str(each["Action"]) for each in policy["Statement"])
    # Without If-None-Match, AWS refuses to put what exists already or not.
    assert not allows(aws, "s3:PutObject", f"{internal}packs/aa/a.pack")
    assert not allows(aws, "s3:PutObject", f"{arn}web/a.json")
    assert allows(others, "s3:PutObject", f"{internal}packs/aa/a.pack")
    assert allows(keeper, "s3:DeleteObject", f"{internal}packs/aa/a.pack")
    assert not allows(keeper, "s3:DeleteObject", "arn:aws:s3:::other/x")


def test_a_directory_has_no_roles():
    with pytest.raises(ConfigError, match="has no roles"):
        lines_of("/srv/backups")


def run(*words):
    argv = [sys.executable, "-m", "virtbackup_async", "config", "protect", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_command_takes_the_keys_from_files(tmp_path):
    (tmp_path / "w.pub").write_text(f"{KEYS[0]}\n")
    done = run("ssh://nas/srv", "--writer-key", tmp_path / "w.pub", "--quota", "1T")
    assert done.returncode == 0
    assert f'-- /srv" {KEYS[0]}\n' in done.stdout
    assert "(the public key of the keeper)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/srv"], "has no roles"),
        (["ftp://nas/srv"], "expected s3://BUCKET"),
        (["ssh://a:hunter2@nas/srv"], "credentials"),
        (["ssh://nas/srv", "--writer-key", "/none"], "cannot read /none"),
        (["ssh://nas/srv", "--writer-key", __file__], "is no public key"),
    ],
)
def test_what_cannot_be_protected_is_refused_in_one_line(words, message):
    refused = run(*words)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert "hunter2" not in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
