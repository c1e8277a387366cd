"""engine/inventory/another_backup.py: what to take in place of a damaged backup."""

import pytest

from fakes.site import DAY_S, Site
from fakes.stored_backup import DATE
from virtbackup_async import open_virtbackup
from virtbackup_async.engine.inventory.another_backup import RESTORE, advise, naming_another
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    CorruptError,
    DefinitionError,
    ForeignRepositoryError,
    NewerVersionError,
    StorageError,
)
from virtbackup_async.model.backup import Packager


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    return site


async def hint_of(site, error, damaged):
    runtime = Runtime(site.configure(), lambda _event: None)
    with pytest.raises(type(error)) as raised:
        async with naming_another(runtime, await found(site, damaged), RESTORE):
            raise error
    return raised.value.hint


async def found(site, stored):
    async with open_virtbackup(site.root / "config.yml") as vb:
        return await vb.find(f"{stored.domain}@{stored.name}")


async def three(site):
    return [await site.store(Packager("directory"), date=DATE + day * DAY_S) for day in range(3)]


async def test_a_damaged_backup_names_the_newest_good_one_and_the_command(site):
    oldest, middle, newest = await three(site)
    await site.verify()
    newest.flip(0.9)
    async with open_virtbackup(site.root / "config.yml") as vb:
        wanted = await vb.find("web")
        assert wanted.definition.name == newest.name
        with pytest.raises(CorruptError) as raised:
            await vb.restore(wanted, site.root / "out")
        assert f" restore web@{middle.name} {site.root}/out` to take" in raised.value.hint
        assert "the newest good one" in raised.value.hint
        assert oldest.name not in str(raised.value)
        with pytest.raises(CorruptError) as raised:
            await vb.export(wanted, "vda", site.root / "x.raw")
        assert f" export web@{middle.name} vda {site.root}/x.raw`" in raised.value.hint


async def test_a_good_one_goes_before_a_newer_unverified_one_and_a_damaged_one_never(site):
    oldest, middle, newest = await three(site)
    assert "the newest unverified one" in await hint_of(site, CorruptError("x"), newest)
    assert middle.name in await hint_of(site, CorruptError("x"), newest)
    middle.flip(0.9)
    await site.verify()
    later = await site.store(Packager("directory"), date=DATE + 5 * DAY_S)
    assert newest.name in await hint_of(site, CorruptError("x"), oldest)
    assert oldest.name in await hint_of(site, CorruptError("x"), newest)
    assert "good" in await hint_of(site, CorruptError("x"), later)


async def test_the_only_backup_says_so(site):
    only = await site.store(Packager("directory"), date=DATE)
    assert await hint_of(site, CorruptError("x"), only) == (
        "No other backup of web is good or unverified."
    )


async def test_the_advice_is_added_to_another(site):
    _, _, newest = await three(site)
    assert (await hint_of(site, CorruptError("x", hint="Repair it."), newest)).startswith(
        "Repair it. Run `virtbackup "
    )


@pytest.mark.parametrize(
    "error",
    [
        NewerVersionError("x"),
        ForeignRepositoryError("x"),
        DefinitionError("x", hint="Restore it as it is."),
        StorageError("x", hint="Mount it."),
    ],
)
async def test_where_another_backup_is_no_better_nothing_is_added(site, error):
    hint = error.hint
    _, _, newest = await three(site)
    assert await hint_of(site, error, newest) == hint


async def test_a_target_that_is_gone_by_then_hides_nothing(site):
    _, _, newest = await three(site)
    gone = await found(site, newest)
    site.target.rename(site.root / "gone")
    with pytest.raises(CorruptError) as raised:
        async with naming_another(Runtime(site.configure(), lambda _event: None), gone, RESTORE):
            raise CorruptError("x")
    assert (raised.value.message, raised.value.hint) == ("x", None)


async def test_a_name_with_blanks_can_be_pasted(site):
    stored = await site.store(Packager("directory"), date=DATE)
    (config, others) = site.configure(), [await found(site, stored)]
    assert f"'my web@{stored.name}'" in advise(config, "all", "my web", others)
