"""The copy of a configuration: all that a restore on a new host needs, and no secret."""

import dataclasses

import pytest
import yaml

from virtbackup_async.config.loading import examine_text, load_config
from virtbackup_async.config.saved_copy import GROUP_SHOWN, TOP_SHOWN, dumps
from virtbackup_async.config.schema import Hooks
from virtbackup_async.config.sections import GROUP_KEYS, TOP_KEYS
from virtbackup_async.config.target_config import config_of_target

MARK = "s3cr3t"
# Decided key by key: what is neither here nor shown is a decision that somebody forgot.
HIDDEN = {
    "debug",
    "username",
    "passphrase",
    "hooks",
    "notify",
    "log",
    "report",
    "default",
    "groups",
}
FULL = f"""
threads: 3
parallel_disks: 4
buffers_mib: 80
io_priority: idle
rate_limit: 200MiB
uri: qemu+ssh://root:{MARK}@host.example:22/system?password={MARK}
username: {MARK}
passphrase: {MARK}
state_directory: /var/lib/x
metrics_textfile: /var/lib/prom/x.prom
hooks:
  before: export TOKEN={MARK}
notify:
  urls: ["mailto://user:{MARK}@example.org"]
log:
  file: /var/log/{MARK}
report:
  html: /srv/{MARK}
new_in_a_later_version: {MARK}
default:
  target: /mnt/backups
  weekly: "*"
  hooks:
    after: [curl, "https://x/{MARK}"]
groups:
  production:
    autostart: true
    packager: zstd
    packager_opts:
      compression_lvl: 5
      password: {MARK}
    quiesce: true
    method: pull
    scratch: /srv/scratch
    audit_percent: 2.5
    full_every: 90d
    max_age: 90m
    track_with_snapshots: true
    rate_limit: 1G
    keep_last: 3
    hosts: [web, "r:^prod-", "!g:lab", {{host: db, disks: [vda], quiesce: false}}]
    later: {MARK}
  lab:
    hosts: ["yes", "1e3"]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(FULL)
    return load_config(path)


def test_no_secret_is_in_the_copy(config):
    assert MARK not in dumps(config, "host").decode()


def test_the_copy_is_a_configuration_that_means_the_same(config):
    copy, problems = examine_text(dumps(config, "host"), config.path)
    problems.raise_errors()
    for key in TOP_SHOWN:
        if key != "uri":
            assert getattr(copy, key) == getattr(config, key), key
    assert copy.uri == "qemu+ssh://root@host.example:22/system"
    for name, group in config.groups.items():
        assert copy.groups[name] == dataclasses.replace(group, hooks=Hooks()), name
    assert yaml.safe_load(dumps(copy, "host")) == yaml.safe_load(dumps(config, "host"))


def test_every_key_is_shown_or_hidden_by_a_decision():
    assert {*TOP_KEYS, *GROUP_KEYS} - {*TOP_SHOWN, *GROUP_SHOWN} <= HIDDEN
    assert not HIDDEN & {*TOP_SHOWN, *GROUP_SHOWN}


def test_no_name_ends_the_comment(config):
    bad = dataclasses.replace(config, path=config.path.with_name("a\nthreads: 9\u2028x"))
    copy = dumps(bad, "evil\nuri: x")
    assert yaml.safe_load(copy) == yaml.safe_load(dumps(config, "host"))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("test:///default", "test:///default"),
        ("qemu+tls://h/system", "qemu+tls://h/system"),
        ("xen://[::1", "xen://[::1"),
        ("qemu+ssh://me@h/system?keyfile=/k", "qemu+ssh://me@h/system"),
        (f"qemu://me:a/{MARK}@h/system", "qemu://me@h/system"),
        (f"qemu://me:a@{MARK}@h/system", None),
        (f"qemu://me:{MARK}#@h/system", None),
        (f"qemu://me:{MARK}?@h/system", None),
    ],
)
def test_a_uri_keeps_no_password(config, uri, shown):
    copy = yaml.safe_load(dumps(dataclasses.replace(config, uri=uri), "host"))
    assert copy.get("uri") == shown


def test_a_target_alone_stands_for_all_domains_and_removes_nothing(tmp_path):
    config = config_of_target(tmp_path)
    (group,) = config.groups.values()
    assert all(group.includes(name) for name in ("web", "a b", "x\ny", "!", "r:"))
    assert {getattr(group.retention, rule) for rule in ("daily", "keep_last", "hourly")} == {None}
    assert not group.autostart
