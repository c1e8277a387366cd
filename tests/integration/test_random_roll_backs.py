"""Whatever state an image is put back to, and when: each backup restores what it held."""

import logging

from incremental_site import IncrementalSite
from roll_backs import DISKS, RollBacks

LOG = logging.getLogger(__name__)

STEPS = 18


async def test_every_backup_is_what_the_images_held(
    daemon, make_domain, tmp_path, monkeypatch, roll_back_seed
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    site = IncrementalSite(daemon, make_domain, tmp_path, DISKS)
    site.config = site.configured(track_with_snapshots=roll_back_seed % 2 == 0)
    walk = RollBacks(site, roll_back_seed)
    await walk.go(STEPS)
    LOG.info("seed %d: %d disks by changes, %d in full", walk.seed, walk.by_changes, walk.full)
