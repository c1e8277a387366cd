"""engine/clean/plan.py: which groups decide about a target, whatever path leads there."""

from pathlib import Path

import pytest

from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.clean.plan import clean_targets
from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation


def config(**targets):
    groups = {name: Group(name, StorageLocation.of(target)) for name, target in targets.items()}
    return Config(Path("/c.yml"), groups=groups)


def test_groups_whose_targets_are_one_directory_decide_together(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "t")
    targets = config(a=tmp_path / "t", b=tmp_path / "link", c=tmp_path / "other")
    (found,) = clean_targets(targets, ["a"])
    assert [group.name for group in found.groups] == ["a"]
    assert [group.name for group in found.neighbours] == ["a", "b"]
    assert len(clean_targets(targets, [])) == 2


def test_a_target_that_is_missing_is_still_one(tmp_path):
    (found,) = clean_targets(config(a=tmp_path / "gone", b=tmp_path / "." / "gone"), [])
    assert len(found.groups) == 2


def test_a_target_that_cannot_be_resolved_decides_nothing(tmp_path):
    """It might be a neighbour's, which would have no say."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StorageError, match=r"cannot read .*loop"):
        clean_targets(config(a=tmp_path, b=loop), ["a"])
