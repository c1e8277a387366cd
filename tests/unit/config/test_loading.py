"""The configuration: what a file becomes, and what an admin is told of one that is wrong."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from virtbackup_async.config import loading
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Retention
from virtbackup_async.config.yaml_file import WAYS_IN
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests/compat/data/config"


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "config.yml"

    def load(text, mode=0o600):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return load_config(path)

    return load


@pytest.fixture
def errors(load, tmp_path):
    """Return the lines of the error, the file's name left out."""

    def errors(text):
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert caught.value.exit_code == 2
        lines = str(caught.value).splitlines()
        start = f"{tmp_path / 'config.yml'}:"
        assert all(line.startswith(start) for line in lines)
        return [line.removeprefix(start) for line in lines]

    return errors


@pytest.fixture
def warnings(load, tmp_path):
    def warnings(text):
        found = load(text).warnings
        return [line.removeprefix(f"{tmp_path / 'config.yml'}:") for line in found]

    return warnings


def test_shipped_example_loads():
    config = load_config(ROOT / "config.yml")
    assert config.warnings == ()
    assert config.threads == 2
    production, archive = config.groups.values()
    assert production.packager == Packager("zstd", {"compression_lvl": 3})
    assert production.target == StorageLocation.of("/var/backups/virtbackup")
    assert production.retention == Retention(1, 7, 4, 6, 2)
    assert archive.retention == Retention(1, 7, 4, 6, None)
    assert [archive.includes(name) for name in ("web", "prod-1", "prod-test1")] == [
        True,
        True,
        False,
    ]


def test_example_of_virt_backup_loads():
    config = load_config(OLD / "0.5.6-example.yml")
    assert config.warnings == ()
    (group,) = config.groups.values()
    assert group.packager == Packager("tar", {"compression": "xz", "compression_lvl": 6})
    assert group.autostart
    assert group.quiesce
    assert group.hosts[0].disks == ("vda", "vdb")
    assert group.hosts[0].quiesce is False
    assert group.hosts[1].quiesce is None


def test_configuration_of_0_1_loads_and_says_what_to_write():
    config = load_config(OLD / "0.1.yml")
    packagers = {name: group.packager for name, group in config.groups.items()}
    assert packagers == {
        "archive": Packager("tar", {"compression": "xz", "compression_lvl": 6}),
        "inherits_level": Packager("tar", {"compression": "gz", "compression_lvl": 4}),
        "plain_tar": Packager("tar", {"compression_lvl": 4}),
        "copies": Packager("directory"),
    }
    assert config.groups["archive"].target == StorageLocation.of("/mnt/kvm/archive")
    assert config.passphrase == "old secret"  # noqa: S105 -- what the sample holds
    told = [line.removeprefix(f"{OLD / '0.1.yml'}:") for line in config.warnings]
    assert told[:3] == [
        "8: password: key of an old version, rename it to passphrase",
        (
            "11: default.compression_lvl: compression_lvl of an old version, write instead:\n"
            "packager_opts:\n  compression_lvl: 4"
        ),
        "16: groups.archive.target_dir: key of an old version, rename it to target",
    ]
    assert told[3] == (
        "17: groups.archive.compression: compression and compression_lvl of an old version, "
        "write instead:\npackager: tar\npackager_opts:\n  compression: xz\n  compression_lvl: 6"
    )
    assert not any("old secret" in line for line in told)


def test_missing_keys_have_virt_backups_defaults(load):
    config = load("groups: {g: }")
    assert (config.debug, config.threads, config.uri, config.username) == (False, 1, None, None)
    assert (config.parallel_disks, config.buffers_mib) == (2, 64)
    group = config.groups["g"]
    assert group.target is None
    assert group.packager == Packager("tar", {})
    assert not group.autostart
    assert not group.autostart_given
    assert group.retention == Retention(5, 5, 5, 5, 5)


@pytest.mark.parametrize(
    ("written", "bytes_per_s"),
    [
        ("1", 1),
        ("1048576", 1 << 20),
        ("50MiB", 50 << 20),
        ("50M", 50 << 20),
        ("200 MB/s", 200_000_000),
        ("1G", 1 << 30),
        ("1.5 GiB/s", 3 << 29),
        ("300B", 300),
        ("2TB", 2 * 10**12),
    ],
)
def test_rate_limits_have_units(load, written, bytes_per_s):
    config = load(f"{{rate_limit: {written}, groups: {{g: {{rate_limit: {written}}}}}}}")
    assert config.rate_limit == config.groups["g"].rate_limit == bytes_per_s


@pytest.mark.parametrize(
    "written", ["0", "-5", "fast", "5 apples", "0.1", "'0'", "0B", "1.5.2M", "5iB", "true", "[1]"]
)
def test_rate_limits_that_are_none_are_refused(errors, written):
    (error,) = errors(f"{{rate_limit: {written}, groups: {{g: }}}}")
    assert "bytes a second, such as 50MiB, 200MB/s or 1G" in error


def test_defaults_are_merged_key_by_key(load):
    config = load("""
default: {target: /t, packager: tar, packager_opts: {compression: gz, compression_lvl: 2},
          autostart: true, hourly: 3, daily: "*"}
groups:
  same:
  own: {packager_opts: {compression: xz}, hourly: null, daily: 2, autostart: no}
""")
    same, own = config.groups.values()
    assert same.packager == Packager("tar", {"compression": "gz", "compression_lvl": 2})
    assert same.retention == Retention(3, None)
    assert same.autostart
    assert own.packager == Packager("tar", {"compression": "xz"})
    assert own.retention == Retention(None, 2)
    assert not own.autostart
    assert own.autostart_given


def test_options_of_another_packager_are_not_inherited(load, warnings):
    text = """
default: {packager: tar, packager_opts: {compression: gz}}
groups:
  g: {packager: zstd}
"""
    assert load(text).groups["g"].packager == Packager("zstd", {})
    assert warnings(text) == [
        "4: groups.g.packager: packager_opts of default are for tar, not used for zstd"
    ]


@pytest.mark.parametrize("nothing", ["None", "none", "null", "~", '"tar"'])
def test_compression_of_nothing_is_none(load, nothing):
    text = f"groups: {{g: {{packager: tar, packager_opts: {{compression: {nothing}}}}}}}"
    assert load(text).groups["g"].packager == Packager("tar", {})


def test_packager_null_copies_into_a_directory(load):
    assert load("groups: {g: {packager: }}").groups["g"].packager == Packager("directory", {})


def test_threads_0_is_the_number_of_cpus(load):
    assert load("{threads: 0, groups: {g: }}").threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("threads: many", "1: threads: found 'many', expected a whole number from 0 on"),
        ("threads: true", "1: threads: found true, expected a whole number"),
        ("threads: -1", "1: threads: found -1, expected a whole number"),
        ("threads: 1.5", "1: threads: found 1.5, expected a whole number"),
        ("debug: 'yes'", "1: debug: found 'yes', expected true or false, without quotes"),
        ("parallel_disks: 0", "1: parallel_disks: found 0, expected a whole number from 1 on"),
        ("uri: [x]", "1: uri: found a list, expected text"),
        ("groups: [a]", "1: groups: found a list, expected a mapping"),
        ("groups:\n  g: text", "2: groups.g: found 'text', expected a mapping"),
        ("groups:\n  '': {}", "2: groups.: a group has no name"),
        ("default:\n  hourly: '5'", "2: default.hourly: found '5', expected a whole number"),
        ("groups:\n  g:\n    daily: -2", "3: groups.g.daily: found -2, expected a whole number"),
        ("groups: {g: {target: 5}}", "1: groups.g.target: found 5, expected text"),
        (
            "groups: {g: {packager: zst}}",
            "1: groups.g.packager: found 'zst', expected one of directory, tar, zstd, repository",
        ),
        (
            "groups: {g: {packager: tar, packager_opts: {compression: lz4}}}",
            "1: groups.g.packager_opts.compression: found 'lz4', expected none, gz, bz2 or xz",
        ),
        (
            "groups: {g: {packager: zstd, packager_opts: {compression_lvl: 23}}}",
            "1: groups.g.packager_opts.compression_lvl: found 23, expected a whole number from 0",
        ),
        ("groups: {g: {hosts: web}}", "1: groups.g.hosts: found 'web', expected a list"),
        ("groups: {g: {hosts: [7]}}", "1: groups.g.hosts[0]: found 7, expected a domain's name"),
        ("groups: {g: {hosts: [{}]}}", "1: groups.g.hosts[0]: host is missing"),
        (
            "groups: {g: {hosts: [{host: a, disks: vda}]}}",
            "1: groups.g.hosts[0].disks: found 'vda', expected a list of texts",
        ),
        (
            "groups: {g: {hosts: ['r:(']}}",
            "1: groups.g.hosts[0]: found the regex '(', which is invalid",
        ),
        ("groups: {g: {hosts: ['!']}}", "1: groups.g.hosts[0]: found '!', expected a name"),
        (
            "groups: {g: {target: ~/backups}}",
            (
                "1: groups.g.target: found '~/backups', expected a path from the root on:"
                " neither ~ nor $VARIABLE is expanded"
            ),
        ),
        (
            "groups: {g: {target: $HOME/b}}",
            "1: groups.g.target: found '$HOME/b', expected a path from the root on: neither ~",
        ),
        ('log: {file: "${LOGS}/l"}', "1: log.file: found '${LOGS}/l', expected a path from"),
        ("metrics_textfile: ~root/m", "1: metrics_textfile: found '~root/m', expected a path"),
        ("groups: {g: {scratch: ~/s}}", "1: groups.g.scratch: found '~/s', expected a path from"),
        (
            "groups: {a: {hosts: ['g:b']}, b: {hosts: ['!g:a']}}",
            "1: groups.a.hosts: groups refer to each other in a circle: b -> a -> b",
        ),
    ],
)
def test_wrong_value_is_told_with_its_place(errors, text, expected):
    assert errors(text)[0].startswith(expected)


def test_all_errors_are_told_together(errors):
    told = errors("threads: x\ndebug: x\ngroups:\n  g:\n    hourly: x\n    hosts: x\n")
    assert [line.split(":")[0] for line in told] == ["1", "2", "5", "6"]


def test_error_in_the_defaults_is_told_once(errors):
    told = errors("default:\n  packager_opts: {compression: lz4}\ngroups: {a: , b: , c: }")
    assert told == [
        "2: default.packager_opts.compression: found 'lz4', expected none, gz, bz2 or xz"
    ]


def test_wrong_packager_brings_no_error_of_its_options(errors):
    told = errors("groups: {g: {packager: zst, packager_opts: {compression_lvl: 15}}}")
    assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# nothing", "is empty"),
        ("[a]", "1: found no keys"),
        ("just text", "1: found no keys"),
        ("a: b: c", '1:5: a ":" that cannot stand here. Put the value into quotes'),
        ("groups:\n  g:\n\thosts: []", "3:1: a tab. YAML wants spaces"),
        ("default:\n  hourly: *\n", '2:12: a "*" without quotes. Put the value into quotes.'),
        ("a: 1\nb: 2\na: 3", "3: a: found twice, first in line 1"),
        ("groups:\n  g: {}\n  g: {}", "3: groups.g: found twice, first in line 2"),
        ("a: 1\n---\nb: 2", "2:1: a second document. Remove"),
        ("a: !!python/object:os.system x", '1:4: a tag, a word that begins with "!". Quote it.'),
        ("? [a]\n: 1", "1:3: a key is not text"),
        (
            "a:\n  b:\n  - x\n c: 2",
            "4:2: the indentation does not fit the keys or items that begin in line 1. Indent",
        ),
        ("a: 1\nb\nc: 2", '3:1: the key in line 2 has no ":". Write `key: value`.'),
        ("a: 'x\nb: 2\n", "3:1: the quote in line 1 is never closed. Close it."),
        ("a: [1, 2\nb: 3", '2:2: the "[" in line 1 is never closed. Close it.'),
        ("a: {x: 1\nb: 2", '2:2: the "{" in line 1 is never closed. Close it.'),
        ("a: @x", "1:4: a value that begins with a character that YAML keeps for itself. Put it"),
        ("a: \x00", "holds a character that YAML does not allow"),
        (b"a: \xff", "not UTF-8 text, at byte 3"),
        ("a: 2020-99-99", "a date or number in it is impossible"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "holds too many values"),
    ],
)
def test_broken_file_is_told_with_its_place(errors, text, expected):
    (line,) = errors(text)
    assert line.lstrip().startswith(expected)


def test_billion_laughs_is_refused(errors):
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    assert "too many values" in errors(laughs)[0]
    merges = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
    )
    assert "too many values" in errors(merges)[0]


def test_large_file_is_refused(errors):
    assert "larger than" in errors("# " + "x" * 1024 * 1024)[0]


def test_anchors_and_merge_keys_work(load):
    config = load("""
x-common: &common {target: /t, packager: directory}
groups:
  a: {<<: *common, hosts: [web]}
  b: {<<: *common, target: /b}
""")
    assert config.groups["a"].target == StorageLocation.of("/t")
    assert config.groups["b"].target == StorageLocation.of("/b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{thread: 2, groups: {g: }}", "1: thread: unknown key, ignored, did you mean 'threads'?"),
        ("groups: {g: {taget: /t}}", "1: groups.g.taget: unknown key, ignored, did you mean"),
        ("{default: {weakly: 1}, groups: {g: }}", "1: default.weakly: unknown key, ignored, did"),
        (
            "groups:\n  g:\n    hosts:\n    - host: a\n      disk: [vda]",
            "5: groups.g.hosts[0].disk: unknown key, ignored, did you mean 'disks'?",
        ),
        (
            "groups: {g: {packager: tar, packager_opts: {compresion: gz}}}",
            "1: groups.g.packager_opts.compresion: no option of the packager tar, ignored, did",
        ),
        ("{qqq: 2, groups: {g: }}", "1: qqq: unknown key, ignored"),
        ("groups:", "1: there are no groups"),
        ("groups: {g: {target: here}}", "1: groups.g.target: is relative to where"),
        (
            "groups: {g: {target_dir: /t}}",
            "1: groups.g.target_dir: key of an old version, rename it to target",
        ),
    ],
)
def test_warning_is_told_with_its_place(warnings, text, expected):
    (line,) = warnings(text)
    assert line.startswith(expected)


@pytest.mark.parametrize("key", ["passphrase", "password"])
@pytest.mark.parametrize(
    "value", ["12345678", "[12345678]", "*12345678", "!12345678", "'12345678", "{a: 12345678}"]
)
def test_passphrase_is_never_repeated(load, key, value):
    with pytest.raises(ConfigError) as caught:
        load(f"groups: {{g: }}\n{key}: {value}\n")
    error = caught.value
    assert "12345678" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_passphrase_is_not_in_the_repr(load):
    config = load("{passphrase: 'hunter two', groups: {g: }}")
    assert config.passphrase == "hunter two"  # noqa: S105 -- what the sample holds
    assert "hunter" not in repr(config)


def test_passphrase_that_all_can_read_is_warned_of(load):
    text = "{passphrase: secret, groups: {g: }}"
    assert load(text, mode=0o640).warnings == ()
    (warning,) = load(text, mode=0o644).warnings
    assert "passphrase: every user can read it" in warning
    assert load("groups: {g: }", mode=0o644).warnings == ()


def test_unreadable_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.yml: cannot be read: No such file"):
        load_config(tmp_path / "missing.yml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_own_file_comes_before_the_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(loading, "SYSTEM_DIRECTORY", tmp_path / "etc")
    with pytest.raises(ConfigError, match="no configuration file: neither") as caught:
        load_config(None)
    assert caught.value.hint == WAYS_IN
    for directory, threads in ((tmp_path / "etc", 3), (tmp_path / "virt-backup", 4)):
        directory.mkdir()
        (directory / "config.yml").write_text(f"{{threads: {threads}, groups: {{g: }}}}")
        assert load_config(None).threads == threads


@pytest.mark.parametrize("text", ["", "# nothing", "[a]", None])
def test_without_a_configuration_both_ways_to_one_are_named(tmp_path, text):
    path = tmp_path / "config.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "`virtbackup init`" in str(caught.value)
    assert "`virtbackup config example > FILE`" in str(caught.value)


def test_a_configuration_without_groups_names_them_too(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("threads: 1\n")
    (warning,) = load_config(path).warnings
    assert WAYS_IN in warning


def test_paths_are_virt_backups(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert loading.search_paths() == (
        Path.home() / ".config/virt-backup/config.yml",
        Path("/etc/virt-backup/config.yml"),
    )


def test_the_environment_names_a_file_before_the_usual_places(monkeypatch, tmp_path):
    named, usual = tmp_path / "named.yml", tmp_path / "virt-backup" / "config.yml"
    usual.parent.mkdir()
    usual.write_text("groups: {}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("VIRTBACKUP_CONFIG", "")
    assert loading.find_config() == usual, "an empty one names none"
    monkeypatch.setenv("VIRTBACKUP_CONFIG", str(named))
    with pytest.raises(ConfigError, match=f"VIRTBACKUP_CONFIG names {named}, which is no file"):
        loading.find_config()
    assert loading.new_config_path() == named
    named.write_text("groups: {}\n")
    assert loading.find_config() == named
    assert load_config(None).path == named


@pytest.mark.parametrize(
    ("path", "variable"), [("/srv/$HOST/b", "$HOST"), ("'/srv/${HOST}'", "${HOST}")]
)
def test_a_variable_in_a_path_is_told_to_be_none(warnings, path, variable):
    for key in ("target", "scratch"):
        assert warnings(
            f"groups: {{g: {{target: /t, {key}: {path}}}}}".replace("target: /t, target", "target")
        ) == [f"1: groups.g.{key}: {variable} is a part of the path: variables are not expanded"]


def test_a_dollar_that_begins_no_variable_is_a_letter(warnings):
    assert warnings("groups: {g: {target: '/srv/a$/b$-c'}}") == []


@pytest.mark.parametrize("entry", ["g:stabel", "!g:stabel"])
def test_a_group_that_is_not_there_is_a_warning(load, warnings, entry):
    """As in virt-backup: it means no domain, and the other groups are none the worse for it."""
    text = f"groups: {{stable: {{target: /t}}, g: {{target: /t, hosts: [a, '{entry}']}}}}"
    assert warnings(text) == [
        f"1: groups.g.hosts: '{entry}' means no domain: no such group, did you mean 'stable'?"
    ]
    group = load(text).groups["g"]
    assert (group.includes("a"), group.includes("b")) == (True, False)


def test_how_old_a_backup_may_become_is_a_day_and_two_hours_unless_it_is_said(load):
    config = load("default: {max_age: 8d}\ngroups: {weekly: {}, nightly: {max_age: 26h}}")
    ages = [group.max_age for group in config.groups.values()]
    assert ages == [timedelta(days=8), timedelta(hours=26)]
    assert load("groups: {any: {}}").groups["any"].max_age == timedelta(hours=26)


ENCRYPTED = "{target: /t, packager: repository, encryption: {key_file: /k}}"


def test_an_encrypted_group_has_its_key_file_in_its_target(load):
    config = load(f"groups: {{a: {ENCRYPTED}, b: {{target: /u}}}}")
    assert config.groups["a"].target == StorageLocation("file", "/t", key_file=Path("/k"))
    assert config.groups["b"].target == StorageLocation.of("/u")
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("{target: /t, encryption: {key_file: /k}}", "only a repository is encrypted"),
        ("{target: /t, packager: repository, encryption: {}}", "key_file is missing"),
        ("{target: /t, packager: repository, encryption: {key_file: }}", "key_file is missing"),
        ("{target: /t, packager: repository, encryption: {key_file: k}}", "from the root on"),
        ("{target: /t, packager: repository, encryption: /k}", "expected a mapping"),
        ("{target: /t, packager: repository, encryption: {key_file: /t/k}}", "in the target"),
        ("{target: /t, packager: repository, encrypt: {key_file: /k}}", "expected encryption"),
        ("{target: /t, packager: repository, Encryption: {key_file: /k}}", "expected encryption"),
    ],
)
def test_an_encryption_that_would_not_encrypt_is_an_error(errors, group, said):
    assert any(said in line for line in errors(f"groups: {{a: {group}}}"))


@pytest.mark.parametrize("other", ["{target: /t, packager: repository}",
                                   "{target: /t, packager: repository, encryption: {key_file: /x}}",
                                   "{target: /t, packager: zstd}"])  # fmt: skip
def test_groups_of_one_target_agree_on_its_key(errors, other):
    (line,) = errors(f"groups: {{a: {ENCRYPTED}, b: {other}}}")
    assert "shares the target of group a" in line
