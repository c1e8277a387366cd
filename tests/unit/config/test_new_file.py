"""A new configuration file: whatever the names are, it is read as it was meant, without a word."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.new_file import NewConfig, NewHost, write_config
from virtbackup_async.config.schema import Retention
from virtbackup_async.errors import ConfigError

PATH = Path("/etc/virt-backup/config.yml")
KEEP = {"keep_last": 3, "hourly": 0, "daily": 7, "weekly": 4, "monthly": 6, "yearly": 0}
ODD = [
    *("yes", "no", "on", "null", "~", "1e3", "010", "1:30", "0x1f", "2026-11-30", ".inf", "-", "="),
    *("!x", "r:.*", "g:guests", "!r:x", "a.b", "a+b", "a$", "(", "\\", "é", "客", " a ", "<<", "?"),
    *("- a", "a: b", "a #b", "'", '"', "{}", "[]", "*a", "&a", "%a", "@a", "`a", "|", ">", ":"),
    *("a\tb", "a\nb", "\x1b[31m"),
]


def read(new):
    data = write_config(new, PATH).encode()
    config, problems = examine_text(data, PATH)
    assert (problems.errors, problems.warnings) == ((), ())
    return config


def test_the_file_says_what_was_chosen():
    new = NewConfig("qemu:///system", Path("/mnt/backup/virtbackup"), "ext4, 1 TiB free", keep=KEEP)
    config = read(new)
    (group,) = config.groups.values()
    assert (config.uri, config.threads) == ("qemu:///system", 2)
    assert (group.name, group.target.directory) == ("guests", Path("/mnt/backup/virtbackup"))
    assert (group.packager.type, group.quiesce) == ("repository", True)
    assert (group.autostart, group.autostart_given) == (True, True)
    assert group.retention == Retention(0, 7, 4, 6, 0, 3)
    assert group.includes("any domain")


def test_each_key_is_explained():
    hosts = (NewHost("web", quiesce=False, why="no agent"), NewHost("old", is_excluded=True))
    text = write_config(NewConfig("x", Path("/x"), hosts=hosts, keep=KEEP), PATH)
    lines = text.splitlines()
    for key in ("uri:", "threads:", "default:", "  target:", "  packager:", "    quiesce: true"):
        (number,) = (at for at, line in enumerate(lines) if line.startswith(key))
        assert lines[number - 1].lstrip().startswith("# "), key
    assert lines[-4:] == [
        "      # no agent",
        "      - host: 'r:web$'",
        "        quiesce: false",
        "      - '!r:old$'",
    ]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("takes_all", [True, False])
def test_an_odd_name_means_its_domain_alone(name, takes_all):
    new = NewConfig("x", Path("/x"), takes_all=takes_all, hosts=(NewHost(name, quiesce=False),))
    (group,) = read(new).groups.values()
    assert group.includes(name)
    entries = [entry for entry in group.hosts if entry.quiesce is False]
    assert [entry.pattern.matches(name) for entry in entries] == [True]
    assert [entry.pattern.matches(other) for entry in entries for other in (f"{name}x", f"x{name}",
            name.upper() + "x")] == [False] * 3  # fmt: skip


@given(st.text(min_size=1).filter(lambda text: "\n" not in text))
def test_any_name_can_be_taken_out(name):
    host = NewHost(name, is_excluded=True, why=name)
    (group,) = read(NewConfig("x", Path("/x"), hosts=(host,))).groups.values()
    assert not group.includes(name)
    assert group.includes(f"{name}x")


@pytest.mark.parametrize("name", ODD)
def test_odd_targets_groups_and_libvirts_are_read_as_written(name):
    config = read(NewConfig(name, Path("/") / name, place=f"on {name}", group=name))
    assert (config.uri, list(config.groups)) == (name, [name])
    assert config.groups[name].target.directory == Path("/") / name


def test_a_target_with_a_variable_is_refused():
    """It would be read as it stands, with a warning each time."""
    with pytest.raises(ConfigError, match="variables are not expanded"):
        write_config(NewConfig("x", Path("/srv/$HOST")), PATH)


def test_a_target_whose_name_is_no_text_is_read_as_it_is():
    target = Path("/srv/\udcff")
    (group,) = read(NewConfig("x", target, place=str(target))).groups.values()
    assert group.target.directory == target


def test_a_list_of_names_takes_those_alone():
    new = NewConfig("x", Path("/x"), takes_all=False, hosts=(NewHost("web"), NewHost("db")))
    text = write_config(new, PATH)
    assert yaml.safe_load(text)["groups"]["guests"]["hosts"] == ["web", "db"]
