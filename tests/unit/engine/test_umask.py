"""What is made has the mode that is meant, whatever umask the program is started with."""

import os

import pytest

from fakes.stored_backup import StoredBackup
from unit.engine.restore.test_state import GivenSite
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.files.directories import make_directories
from virtbackup_async.model.backup import Packager

UMASKS = [0, 0o022, 0o027, 0o077]


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(place):
    return {str(path.relative_to(place)): path.stat().st_mode & 0o7777 for path in place.rglob("*")}


@pytest.mark.parametrize(("for_domain", "mode"), [(True, 0o711), (False, 0o700)])
async def test_restored_images_are_reachable_by_whom_they_are_meant_for(
    tmp_path, umask, for_domain, mode
):
    stored = await StoredBackup(tmp_path / "target", Packager("directory")).make(tmp_path / "disk")
    place = tmp_path / "new"
    request = RestoreRequest(
        stored.definition, stored.directory, place / "above" / "here", for_domain=for_domain
    )
    await restore_backup(Runtime(Config(tmp_path / "config.yml"), lambda _: None), request)
    assert modes(tmp_path)["new"] == mode
    assert modes(place) == {
        "above": mode, "above/here": mode, "above/here/disk": 0o600, "above/here/web.xml": 0o600,
    }  # fmt: skip


async def test_state_is_reachable_by_qemu(tmp_path, umask):
    site = GivenSite(tmp_path)
    await site.give()
    assert modes(tmp_path / "swtpm") == {
        f"{site.tpm.parent.name}": 0o711,
        f"{site.tpm.parent.name}/tpm2": 0o700,
        f"{site.tpm.parent.name}/tpm2/tpm2-00.permall": 0o600,
    }
    assert site.tpm.parent.parent.stat().st_mode & 0o777 == 0o711


def test_a_directory_that_is_there_stays_as_it_is(tmp_path):
    place = tmp_path / "there"
    place.mkdir(mode=0o700)
    assert make_directories(place, 0o711) == []
    assert make_directories(place / "below", 0o711) == [place / "below"]
    assert [path.stat().st_mode & 0o777 for path in (place, place / "below")] == [0o700, 0o711]


def test_the_group_of_a_shared_directory_goes_on_being_handed_down(tmp_path):
    tmp_path.chmod(0o2770)
    make_directories(tmp_path / "a" / "b", 0o711)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o2711
