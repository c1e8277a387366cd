"""docs/reference/configuration.md names every key and every default, and its example loads."""

import dataclasses
import re
from pathlib import Path

import pytest

from virtbackup_async.config import sections, target_value
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config, Retention
from virtbackup_async.model.packager import PACKAGER_TYPES

TEXT = (Path(__file__).parents[3] / "docs/reference/configuration.md").read_text()


def rows(title):
    """Return the rows of the first table below a heading: key to the other cells."""
    text = TEXT.split(f" {title}\n", 1)[1]
    table = re.search(r"^\| Key \|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE).group()
    cells = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in cells}


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("Keys at the top", sections.TOP_KEYS),
        ("Keys of a group", sections.GROUP_KEYS),
        ("Targets", target_value.TARGET_KEYS),
        ("Encryption", sections.ENCRYPTION_KEYS),
        ("Hosts", sections.HOST_KEYS),
        ("Hooks around a run", sections.HOOK_KEYS),
        ("Notifications", sections.NOTIFY_KEYS),
        ("Report", sections.REPORT_KEYS),
        ("Log", sections.LOG_KEYS),
    ],
)
def test_each_key_is_documented(title, keys):
    assert set(rows(title)) == set(keys)


def test_defaults_are_those_of_the_code():
    documented = rows("Keys at the top")
    plain = Config(path=Path())
    for key in ("debug", "threads", "parallel_disks", "buffers_mib"):
        assert documented[key][1] == f"`{getattr(plain, key)}`".lower()
    documented = rows("Keys of a group")
    for period in dataclasses.fields(Retention):
        assert documented[period.name][1] == f"`{period.default}`"


def test_each_packager_is_documented():
    for packager in PACKAGER_TYPES:
        assert f"| `{packager}` |" in TEXT


def test_example_loads(tmp_path):
    example = re.search(r"<!-- loaded by .* -->\n```yaml\n(.*?)```", TEXT, re.DOTALL).group(1)
    path = tmp_path / "config.yml"
    path.write_text(example)
    config = load_config(path)
    assert config.warnings == ()
    assert config.groups["production"].retention == Retention(5, 7, 5, 5, None)
