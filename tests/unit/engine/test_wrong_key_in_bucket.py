"""A key that does not fit an encrypted bucket: refused at once, and nothing is written."""

import pytest
from msgspec.structs import replace

from fakes.other_site import OtherSite
from object_stores import new_location
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.errors import ConfigError
from virtbackup_async.repository import make_repository, open_inner
from virtbackup_async.repository.storage.key_file import make_key_file


@pytest.fixture
def site(object_server, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    location = new_location(object_server.endpoint)
    make_repository(replace(location, key_file=tmp_path / "key"))
    make_key_file(tmp_path / "other")
    site = OtherSite(tmp_path, open_inner(location))
    site.target_place = replace(location, key_file=tmp_path / "other")
    return site


COMMANDS = {
    "backup": lambda site: site.back_up(),
    "list": lambda site: run_list(site.runtime(), ListRequest()),
    "clean": lambda site: run_clean(site.runtime(), CleanRequest()),
    "verify": lambda site: site.verify(),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
async def test_a_key_that_does_not_fit_is_refused_and_nothing_is_written(site, command):
    before = site.storage.traffic.by_kind()
    with pytest.raises(ConfigError) as error:
        await command(site)
    assert error.value.exit_code == 2
    assert "\n" not in error.value.message
    assert error.value.hint
    after = site.storage.traffic.by_kind()
    changed = {key[0] for key, count in after.items() if before.get(key) != count}
    assert changed <= {"get", "head", "list"}
    assert site.domain.live == {"vda": site.image}
