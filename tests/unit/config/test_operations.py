"""Hooks, notifications and the log in the configuration: what is read, what is refused."""

from pathlib import Path

import pytest
import yaml

from virtbackup_async.config.loading import load_config
from virtbackup_async.errors import ConfigError


@pytest.fixture
def load(tmp_path):
    def load(**content):
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump({"groups": {"main": {"target": "/t"}}} | content))
        path.chmod(0o600)
        return load_config(path)

    return load


def test_text_is_for_the_shell_and_a_list_is_not(load):
    config = load(hooks={"before": "mount /b | cat", "after": ["sync", "-f", ""], "timeout_s": 5})
    assert config.hooks.before == ("/bin/sh", "-c", "mount /b | cat")
    assert config.hooks.after == ("sync", "-f", "")
    assert (config.hooks.on_failure, config.hooks.timeout_s) == (None, 5)


def test_hooks_of_default_are_those_of_each_group_without_its_own(load):
    groups = {"a": {"target": "/t"}, "b": {"target": "/t", "hooks": {"after": "b"}}}
    config = load(default={"hooks": {"before": "d"}}, groups=groups)
    assert config.groups["a"].hooks.before == ("/bin/sh", "-c", "d")
    assert config.groups["b"].hooks.before is None
    assert config.hooks.before is None


def test_all_of_operations(load):
    config = load(
        metrics_textfile="/var/lib/m.prom",
        notify={"urls": ["json://localhost"], "on": "always"},
        log={"journald": True, "file": "/var/log/v.log", "level": "warning"},
    )
    assert config.metrics_textfile == Path("/var/lib/m.prom")
    assert (config.notify.urls, config.notify.on) == (("json://localhost",), "always")
    assert (config.log.journald, config.log.file) == (True, Path("/var/log/v.log"))
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"hooks": {"before": []}}, "hooks.before"),
        ({"hooks": {"before": [1]}}, "hooks.before"),
        ({"hooks": {"before": "  "}}, "hooks.before"),
        ({"hooks": {"timeout_s": 0}}, "hooks.timeout_s"),
        ({"metrics_textfile": "relative"}, "from the root on"),
        ({"notify": {"on": "never"}}, "one of failure, always"),
        ({"notify": {"urls": "json://secret"}}, "notify.urls: found something else"),
        ({"log": {"level": "loud"}}, "log.level"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(load, content, said):
    with pytest.raises(ConfigError) as caught:
        load(**content)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_urls_are_secrets(load, tmp_path):
    config = load(notify={"urls": ["json://me:hunter2@localhost"]})
    assert "hunter2" not in repr(config)
    (tmp_path / "config.yml").chmod(0o644)
    (warning,) = load_config(tmp_path / "config.yml").warnings
    assert "every user can read it" in warning
