"""How much the backups hold and take."""

import io

import pytest
from rich.console import Console

from fakes.stored_backup import DATA_BYTES, DATE, MIB, StoredBackup
from virtbackup_async.cli.render.stats import Stats
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.stats import run_stats
from virtbackup_async.events import DomainStats, RepositoryStats, Summary
from virtbackup_async.model.backup import Packager


@pytest.fixture
async def events(tmp_path):
    target = tmp_path / "target"
    for number, packager in enumerate(["repository", "repository", "directory"]):
        backup = StoredBackup(target, Packager(packager), date=DATE + 100 * number)
        await backup.make(tmp_path / "image")
    path = tmp_path / "config.yml"
    path.write_text(f"groups: {{main: {{target: {target}, hosts: [web]}}}}")
    said = []
    await run_stats(load_config(path), ["main"], said.append)
    return said


async def test_equal_backups_take_the_space_of_one(events):
    domain, store = events
    assert isinstance(domain, DomainStats)
    assert (domain.group, domain.domain, domain.backups) == ("main", "web", 3)
    assert domain.size_bytes == 3 * (MIB + DATA_BYTES)
    assert domain.data_bytes == 3 * DATA_BYTES
    assert 2 * DATA_BYTES < domain.stored_bytes < 2 * DATA_BYTES + 4096
    assert isinstance(store, RepositoryStats)
    assert (store.backups, store.data_bytes) == (2, 2 * DATA_BYTES)
    assert DATA_BYTES < store.stored_bytes < DATA_BYTES + 4096


async def test_the_text_has_the_ratios(events):
    stats = Stats()
    for event in events:
        stats.add(event)
    shown = io.StringIO()
    stats.print(Console(file=shown, width=200), Summary(True, (), (), 0))
    assert "1.5" in shown.getvalue().splitlines()[1]
    assert "repository: 512.0 KiB of data in 256.1 KiB: 2.0 to 1" in shown.getvalue()
