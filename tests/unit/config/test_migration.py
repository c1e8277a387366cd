"""What `config migrate` writes: today's keys, the same meaning, nothing else touched."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.migration import migrate
from virtbackup_async.errors import ConfigError

DATA = Path(__file__).parents[2] / "compat/data/config"
PATH = Path("/etc/config.yml")


def migrated(text):
    return migrate(text.encode(), PATH).data.decode()


def meaning(data):
    config, problems = examine_text(data, PATH)
    problems.raise_errors()
    return config


def deprecated(data):
    _, problems = examine_text(data, PATH)
    return [remark for remark in problems.warnings if "of an old version" in remark.message]


@pytest.mark.parametrize("sample", sorted(DATA.glob("*.yml")), ids=lambda path: path.stem)
def test_each_sample_is_migrated_once_and_means_the_same(sample):
    before = sample.read_bytes()
    migration = migrate(before, PATH)
    assert bool(migration.changes) == sample.stem.startswith("0.1")
    assert meaning(migration.data) == meaning(before)
    assert examine_text(migration.data, PATH)[1].warnings == ()
    assert migrate(migration.data, PATH).data == migration.data


def test_the_example_of_0_1_becomes_that_of_0_4():
    old, new = (meaning((DATA / name).read_bytes()) for name in ("0.1-example.yml", "0.4.yml"))
    assert old == new


def test_order_comments_quotes_and_ways_of_writing_stay():
    before = """\
# before
--- # the document
password:   "se cret"  # known to two
x: 0o7
default:
    compression_lvl: 4  # a level
    daily: 04

groups:
    a:
        # at the head
        target_dir: '/x'
        compression: xz   # the best

        # the next thing
        autostart: yes
        hosts:
        - a
        - host: b   # the other
          disks: [vda, 'vdb']
        yearly: ~
        hooks:
          before: |
            true  # no comment
    b: {compression: bz2, hosts: [c]}
    c:
        compression_lvl: 7   # seven
        # in the middle
        hourly: "*"
        compression: tar
# at the end
"""
    assert (
        migrated(before)
        == """\
# before
--- # the document
passphrase: "se cret"  # known to two
x: 0o7
default:
    packager_opts:
        compression_lvl: 4 # a level
    daily: 04

groups:
    a:
        # at the head
        target: '/x'
        packager: tar     # the best
        packager_opts:
            compression: xz
            compression_lvl: 4

        # the next thing
        autostart: yes
        hosts:
        - a
        - host: b   # the other
          disks: [vda, 'vdb']
        yearly: ~
        hooks:
            before: |
                true  # no comment
    b: {packager: tar, packager_opts: {compression: bz2, compression_lvl: 4}, hosts: [c]}
    c:
        packager_opts:
            compression_lvl: 7 # seven
        # in the middle
        hourly: "*"
        packager: tar
# at the end
"""
    )


def test_what_has_nothing_old_stays_byte_for_byte():
    before = "groups:   {a: {target: '/x',}}   # \r\n\r\n"
    assert migrated(before) == before


def test_ends_of_lines_stay():
    assert migrated("groups:\r\n  a:\r\n    target_dir: /x\r\n") == (
        "groups:\r\n  a:\r\n    target: /x\r\n"
    )


def test_new_key_that_is_there_already_wins_and_no_comment_is_lost():
    text = "groups:\n  a:\n    target_dir: /old  # old\n    # more\n    target: /new  # new\n"
    result = migrated(text)
    assert yaml.safe_load(result) == {"groups": {"a": {"target": "/new"}}}
    assert all(f"# {word}" in result for word in ("old", "more", "new"))


def test_level_of_a_copy_goes_with_its_comment_kept():
    text = "groups:\n  a:\n    compression:\n    compression_lvl: 7  # seven\n    hourly: 1\n"
    result = migrated(text)
    assert yaml.safe_load(result) == {"groups": {"a": {"packager": "directory", "hourly": 1}}}
    assert "# seven" in result


def test_options_that_are_there_already_get_the_level():
    text = "groups: {a: {packager: tar, packager_opts: {compression: gz}, compression_lvl: 3}}"
    opts = yaml.safe_load(migrated(text))["groups"]["a"]["packager_opts"]
    assert opts == {"compression": "gz", "compression_lvl": 3}


def test_plain_tar_does_not_inherit_the_compression_of_the_defaults():
    text = "default: {compression: gz}\ngroups: {a: {compression: tar}}"
    assert meaning(text.encode()).groups["a"].packager.opts == {}
    assert meaning(migrated(text).encode()).groups["a"].packager.opts == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x {compression: gz}\ngroups:\n  b: {<<: *x}\n", "groups.b.compression comes from an"),
        ("threads: x\ngroups: {b: {compression: gz}}", ":1: threads: found 'x'"),
        ("groups: {b: {compression: lz4}}", "found 'lz4', expected none, gz, bz2 or xz"),
        ("[", "expected"),
    ],
)
def test_what_cannot_be_migrated_is_refused(text, said):
    with pytest.raises(ConfigError) as caught:
        migrated(text)
    assert said in str(caught.value)


def test_an_anchored_section_is_migrated_where_it_stands():
    result = migrated("default: &d {compression: gz}\ngroups: {a: *d}\n")
    new = "{packager: tar, packager_opts: {compression: gz}}"
    assert result == f"default: &d {new}\ngroups: {{a: *d}}\n"


LEVEL = st.integers(1, 9)
SECTION = st.fixed_dictionaries(
    {},
    optional={
        "compression": st.sampled_from([None, "tar", "gz", "bz2", "xz", "None"]),
        "compression_lvl": LEVEL,
        "packager": st.sampled_from(["tar", "directory"]),
        "packager_opts": st.fixed_dictionaries({}, optional={"compression_lvl": LEVEL}),
        "target": st.sampled_from(["/a", None]),
        "target_dir": st.sampled_from(["/b", "/c d", "/é"]),
        "hourly": st.sampled_from([1, "*", None]),
        "hosts": st.lists(st.sampled_from(["web", "r:^x", "!y", "yes", "1"]), max_size=3),
    },
)
FILES = st.fixed_dictionaries(
    {"groups": st.dictionaries(st.sampled_from(["a", "b", "yes"]), SECTION, min_size=1)},
    optional={"default": SECTION, "password": st.just("s"), "passphrase": st.just("t")},
)


@settings(deadline=None)
@given(FILES, st.booleans(), st.sampled_from([None, 2, 4]))
def test_any_file_means_the_same_after_it(raw, flow, indent):
    text = yaml.safe_dump(raw, default_flow_style=flow, sort_keys=False, indent=indent)
    lines = [f"{line}  # {number}" for number, line in enumerate(text.splitlines())]
    data = ("\n".join(lines) + "\n").encode() if not flow else text.encode()
    result = migrate(data, PATH)
    assert meaning(result.data) == meaning(data)
    assert deprecated(result.data) == []
    assert migrate(result.data, PATH).data == result.data
    said = [line.rsplit("# ", 1)[-1].strip() for line in result.data.decode().splitlines()]
    kept = {number for number in said if number.isdigit()}
    assert kept >= {str(number) for number in range(len(lines))} or flow
