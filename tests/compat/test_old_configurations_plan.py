"""What the example configurations of virt-backup mean here, without a hypervisor."""

from pathlib import Path

import pytest

from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.plan import plan_backups

DATA = Path(__file__).parent / "data/config"
EXAMPLES = ("0.1-example.yml", "0.4.yml", "0.5.6-example.yml")
KNOWN = ("domainname", "domainname2", "domainname3", "prod", "prod-2", "test-1", "other")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_plans_what_virt_backup_would_back_up(name):
    plan = plan_backups(load_config(DATA / name), ["test"], KNOWN)
    assert {backup.domain: backup.disks for backup in plan.backups} == {
        "domainname": ("vda", "vdb"),
        "domainname2": (),
        "prod": (),
        "prod-2": (),
    }
    assert plan.missing == plan.warnings == ()
    opts = {"compression": "xz", "compression_lvl": 6}
    assert {backup.group.packager.type for backup in plan.backups} == {"tar"}
    assert all(backup.group.packager.opts == opts for backup in plan.backups)


@pytest.mark.parametrize("name", EXAMPLES[:2])
def test_group_without_autostart_is_told(name):
    plan = plan_backups(load_config(DATA / name), [], KNOWN)
    assert {backup.group.name for backup in plan.backups} == {"test"}
    (warning,) = plan.warnings
    assert "autostart key: test_dir;" in warning


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_lists_what_its_target_holds(name, tmp_path):
    path = tmp_path / name
    path.write_text((DATA / name).read_text().replace("/mnt/kvm/backups", str(tmp_path)))
    listing, *_ = await list_backups(load_config(path), ["test"], [], known_domains=KNOWN)
    assert [*listing.backups_by_domain] == ["domainname", "domainname2", "prod", "prod-2"]
    assert listing.problems == ()
