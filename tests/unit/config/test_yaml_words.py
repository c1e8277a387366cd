"""Keys and values as a person types them: YAML 1.1 takes many a word for something else.

Text, and not ``yaml.dump``: that puts in quotes what a person does not.
"""

import pytest

from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.migration import migrate
from virtbackup_async.config.sections import (
    GROUP_KEYS,
    HOOK_KEYS,
    HOST_KEYS,
    LOG_KEYS,
    NOTIFY_KEYS,
    REPORT_KEYS,
    TOP_KEYS,
)
from virtbackup_async.errors import ConfigError

SECTIONS = {
    "{}": TOP_KEYS,
    "default:\n  {}": GROUP_KEYS,
    "groups:\n  main:\n    {}": GROUP_KEYS,
    "groups:\n  main:\n    hosts:\n      - host: web\n        {}": HOST_KEYS,
    "groups:\n  main:\n    hooks:\n      {}": HOOK_KEYS,
    "hooks:\n  {}": HOOK_KEYS,
    "notify:\n  {}": NOTIFY_KEYS,
    "log:\n  {}": LOG_KEYS,
    "report:\n  {}": REPORT_KEYS,
    "default:\n  packager_opts:\n    {}": dict.fromkeys(["compression", "compression_lvl"]),
}
# The words of YAML 1.1, each with what it means there.
TRUE, FALSE = ["true", "True", "on", "On", "yes", "YES"], ["false", "off", "no", "No"]
NOTHING = ["", "~", "null", "Null", "NULL"]
ODD_NUMBERS = {"010": 8, "0777": 511, "1:30": 90, "20:30:40": 73840, "-010": -8, "1:30.5": 90.5}
NUMBERS = {"8": 8, "1_000": 1000, "0x10": 16, "0b11": 3, "0": 0, "1.5": 1.5, "1.0e+3": 1000.0}
OTHERS = [
    "y", "n", "1e3", "2026-11-29", "2026-11-29 10:00:00", "2026-11-29T10:00:00Z", ".inf", ".nan",
    "=", "<<", "09", "0o17", "1.", "+5", "12e03", "0.", "!!binary aGk=", "!!int 3", "!!set {a}",
]  # fmt: skip
NOT_FOR_YAML = ["=", "<<"]
WORDS = [*TRUE, *FALSE, *NOTHING, *ODD_NUMBERS, *NUMBERS, *OTHERS]


def read(text):
    """Return what is read, the errors and the warnings."""
    config, problems = examine_text(text.encode(), "c.yml")
    return config, [*map(str, problems.errors)], [*map(str, problems.warnings)]


def every_key():
    for template, keys in SECTIONS.items():
        for key in keys:
            # Whole sections, and the one key that stands in its template.
            if key not in {"groups", "default", "hosts", "host"}:
                yield pytest.param(template, key, id=f"{template.split(':')[0]}-{key}")


@pytest.mark.parametrize(("template", "key"), [*every_key()])
def test_every_word_behind_every_key_is_taken_or_told_of(template, key):
    for word in WORDS:
        check_word(template, key, word)


def check_word(template, key, word):
    text = template.format(f"{key}: {word}") + "\n"
    line = text.count("\n")
    if word in NOT_FOR_YAML:
        with pytest.raises(ConfigError, match=rf"^c\.yml:{line}:"):
            read(text)
        return
    _, errors, warnings = read(text)
    told = [said for said in errors + warnings if f".{key}: " in f".{said.split(': ', 1)[1]}"]
    if word in ODD_NUMBERS:
        assert told
    elif errors:
        assert told
        assert told[0].startswith(f"c.yml:{line}: ")
    if errors and word in [*TRUE[2:], *FALSE[1:]] and key not in {"passphrase", "urls"}:
        assert f"found {word}, which YAML reads as {str(word in TRUE).lower()}, expected" in told[0]


@pytest.mark.parametrize("key", ["autostart", "quiesce"])
@pytest.mark.parametrize("word", TRUE + FALSE)
def test_flags_are_what_yaml_makes_of_the_word(key, word):
    config, errors, warnings = read(f"groups: {{a: {{target: /t, {key}: {word}}}}}\n")
    assert (getattr(config.groups["a"], key), errors) == (word in TRUE, [])
    assert not [said for said in warnings if key in said]


@pytest.mark.parametrize(("word", "value"), [*ODD_NUMBERS.items()])
def test_a_number_that_is_another_one_to_yaml_stays_readable_and_is_told(word, value):
    """virt-backup reads it in the same way, so that is what it meant up to now."""
    config, errors, warnings = read(f"groups: {{a: {{target: /t, daily: {word}}}}}\n")
    if isinstance(value, int) and value >= 0:
        assert config.groups["a"].retention.daily == value
        said = f"c.yml:1: groups.a.daily: {word} is {value} in YAML: write {value}, if you mean it"
        assert (errors, warnings) == ([], [said])
    else:
        assert "groups.a.daily: found " in errors[0]


@pytest.mark.parametrize("word", ["8", "1_000", "0x10", "0b11", "0"])
def test_a_number_that_anybody_reads_alike_is_not_remarked_on(word):
    config, errors, warnings = read(f"groups: {{a: {{target: /t, daily: {word}}}}}\n")
    assert config.groups["a"].retention.daily == NUMBERS[word]
    assert (errors, warnings) == ([], [])


@pytest.mark.parametrize("word", NOTHING)
def test_nothing_is_all_of_a_period(word):
    config, _, _ = read(f"groups:\n  a:\n    target: /t\n    daily: {word}\n")
    assert config.groups["a"].retention.daily is None


def test_notify_on_is_a_key():
    config, errors, warnings = read(
        'notify:\n  urls: ["json://h"]\n  on: always\ngroups: {a: {target: /t}}\n'
    )
    assert (config.notify.on, errors, warnings) == ("always", [], [])


NAMES = [word for word in [*TRUE, *FALSE, *NOTHING[1:], *ODD_NUMBERS, *NUMBERS, *OTHERS]
         if word[0] not in "!<"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_group_is_called_what_is_written(name):
    text = f"groups:\n  {name}:\n    target: /t\n    daily: x\n"
    config, errors, _ = read(text)
    assert list(config.groups) == [name]
    assert errors[0].startswith(f"c.yml:4: groups.{name}.daily: found 'x'")


@pytest.mark.parametrize("name", NAMES)
def test_a_group_of_any_name_is_migrated(name, tmp_path):
    text = f"groups:\n  {name}:\n    target_dir: /t\nnotify:\n  on: always\n"
    migrated = migrate(text.encode(), tmp_path).data.decode()
    assert migrated == text.replace("target_dir", "target")


@pytest.mark.parametrize("key", ["? [a]\n: b\n", "{a: b}: c\n"])
def test_a_key_that_is_no_word_is_refused(key):
    with pytest.raises(ConfigError, match="a key is not text"):
        read(key)


def test_keys_that_only_yaml_takes_for_the_same_are_two():
    config, errors, _ = read("groups:\n  on: {target: /a}\n  yes: {target: /b}\n")
    assert (list(config.groups), errors) == (["on", "yes"], [])


@pytest.mark.parametrize("word", ["off", "010", "1:30", "2026-11-29", "1e3", "y"])
def test_a_domain_that_yaml_takes_for_something_else(word):
    for entry in (word, f"{{host: {word}}}"):
        config, errors, _ = read(f"groups: {{a: {{target: /t, hosts: [{entry}]}}}}\n")
        if word in {"1e3", "y"}:
            assert config.groups["a"].hosts[0].pattern.value == word
        else:
            assert f"found {word}, which YAML reads as " in errors[0]
            assert "in quotes" in errors[0]


def test_a_secret_is_in_no_message():
    _, errors, warnings = read("passphrase: 0123\nnotify: {urls: 0123}\n")
    assert len(errors) == 2
    assert not [said for said in errors + warnings if "123" in said or "83" in said]
