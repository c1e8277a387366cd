"""engine/restore/state.py: state goes where libvirt looks for it, and over nothing."""

import os

import pytest

from fakes.site import Site
from virtbackup_async.engine.restore.plan import RestoredImage, RestoredState, RestorePlan
from virtbackup_async.engine.restore.state import give_state, state_paths
from virtbackup_async.errors import StorageError
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import ImageRecord
from virtbackup_async.model.domain import DomainInfo

UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
OWNER = "nobody"


def restored(kind, name, source_name, owner=OWNER, image_format="raw"):
    record = ImageRecord("f", f"/x/{source_name}", image_format, 1, 1, 1, "")
    return RestoredState(kind, RestoredImage("f", name, record), source_name, owner)


class GivenSite(Site):
    """A domain as libvirt has it, and what was restored of it."""

    def __init__(self, root):
        super().__init__(root, target="restored")
        self.nvram = root / "nvram" / "web.fd"
        self.nvram.parent.mkdir()
        self.own = frozenset({self.nvram.parent})
        self.tpm = root / "swtpm" / UUID / "tpm2"
        (self.target / "web.fd").write_bytes(b"variables")
        (self.target / "tpm-tpm2-00.permall").write_bytes(b"seeds")
        self.state = [
            restored("nvram", "web.fd", "web.fd"),
            restored("tpm", "tpm-tpm2-00.permall", "tpm2-00.permall"),
        ]
        self.inside = (
            f"<os><nvram>{self.nvram}</nvram></os>"
            "<devices><tpm><backend type='emulator'/></tpm></devices>"
        )

    @property
    def said(self):
        return self.warnings()

    @property
    def info(self):
        xml = f"<domain>{self.inside}</domain>"
        return DomainInfo(
            "web", UUID, -1, False, True, xml, self.root / "swtpm", state_directories=self.own
        )

    @property
    def plan(self):
        return RestorePlan((), "web.xml", tuple(self.state))

    async def give(self):
        await give_state(LocalHost(), self.plan, self.target, self.info, self.emit)

    async def paths(self):
        return await state_paths(LocalHost(), self.plan, self.info, self.emit)

    def leftovers(self):
        return [path for path in self.root.rglob("*") if ".vbk-" in path.name]


@pytest.fixture
def site(tmp_path):
    return GivenSite(tmp_path)


async def test_state_is_put_where_the_domain_has_it(site):
    await site.give()
    assert site.nvram.read_bytes() == b"variables"
    assert (site.tpm / "tpm2-00.permall").read_bytes() == b"seeds"
    assert site.tpm.stat().st_mode & 0o777 == 0o700
    assert site.tpm.parent.stat().st_mode & 0o777 == 0o711
    assert site.nvram.stat().st_mode & 0o777 == 0o600
    assert site.said == site.leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_files_belong_to_whom_they_belonged(site):
    await site.give()
    assert (site.tpm / "tpm2-00.permall").owner() == OWNER
    assert site.tpm.owner() == site.nvram.owner() == OWNER


@pytest.mark.parametrize("owner", ["no-such-user", "a\0b", "\udc80", "-1"])
async def test_user_whom_this_host_lacks_is_said(site, owner):
    site.state[1] = restored("tpm", "tpm-tpm2-00.permall", "tpm2-00.permall", owner)
    await site.give()
    assert (site.tpm / "tpm2-00.permall").exists()
    (said,) = site.said
    assert said.endswith(f"this host has no user {owner}")


async def test_many_files_for_one_are_not_given(site):
    site.state[1] = restored("nvram", "tpm-tpm2-00.permall", "other.fd")
    await site.give()
    assert not site.nvram.exists()
    (said,) = site.said
    assert "the backup has 2" in said


async def test_empty_directory_is_nothing(site):
    site.tpm.mkdir(parents=True)
    await site.give()
    assert (site.tpm / "tpm2-00.permall").read_bytes() == b"seeds"


async def test_what_is_there_stays_and_is_said(site):
    site.nvram.symlink_to("nowhere")
    site.tpm.mkdir(parents=True)
    (site.tpm / "tpm2-00.permall").write_bytes(b"newer")
    await site.give()
    assert site.nvram.is_symlink()
    assert not site.nvram.exists()
    assert (site.tpm / "tpm2-00.permall").read_bytes() == b"newer"
    assert [said.endswith("is there already, and stays") for said in site.said] == [True, True]


async def test_domain_that_uses_the_restored_file_itself_is_left_so(site):
    site.inside = f"<os><nvram>{site.target / 'web.fd'}</nvram></os>"
    site.state.pop()
    await site.give()
    assert (site.target / "web.fd").read_bytes() == b"variables"
    assert site.said == []


async def test_domain_without_a_use_for_it_is_said(site):
    site.inside = ""
    site.state.append(restored("future", "x", "x"))
    await site.give()
    assert len(site.said) == 3
    assert site.said[-1].startswith("future is not")


async def test_directory_that_is_missing_is_an_error_and_nothing_is_left(site):
    site.nvram.parent.rmdir()
    with pytest.raises(StorageError, match=r"web\.fd"):
        await site.give()
    (site.root / "nvram").mkdir()
    (site.root / "swtpm").write_bytes(b"no directory")
    with pytest.raises(StorageError, match="tpm2"):
        await site.give()
    assert site.leftovers() == []


HOSTILE = {
    "nvram": "<os><nvram>{}</nvram></os>",
    "varstore": "<os><varstore path='{}'/></os>",
    "pstore": "<devices><pstore><path>{}</path></pstore></devices>",
    "tpm": "<devices><tpm><backend type='emulator'><source type='file' path='{}'/>"
    "</backend></tpm></devices>",
    "tpm, a directory": "<devices><tpm><backend type='emulator'><source type='dir' path='{}'/>"
    "</backend></tpm></devices>",
}
ELSEWHERE = [
    "cron.d/x", "nvram/../cron.d/x", "nvram/sub/x", "nvram/link/x", "restored/other", "swtpm/x",
    "swtpm/other/tpm2", f"swtpm/{UUID}/..",
]  # fmt: skip


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize("form", HOSTILE)
async def test_nothing_is_written_where_only_the_definition_says(site, form, path):
    for directory in ("cron.d", "nvram/sub", "swtpm/other", f"swtpm/{UUID}"):
        (site.root / directory).mkdir(parents=True)
    (site.root / "nvram/link").symlink_to(site.root / "cron.d")
    site.inside = HOSTILE[form].format(site.root / path)
    site.state = [restored(form.partition(",")[0], "web.fd", "x")]
    before = sorted(site.root.rglob("*"))
    await site.give()
    assert sorted(site.root.rglob("*")) == before
    (said,) = site.said
    assert said.endswith(f"so it is in {site.target / 'web.fd'} alone")


async def test_libvirt_whose_places_are_not_known_gets_nothing(site):
    site.own = frozenset()
    await site.give()
    assert not site.nvram.exists()
    assert site.said[0].endswith("alone")


async def test_link_in_the_place_of_a_directory_is_something(site):
    site.tpm.parent.mkdir(parents=True)
    (site.root / "empty").mkdir()
    site.tpm.symlink_to(site.root / "empty")
    await site.give()
    assert list((site.root / "empty").iterdir()) == []
    assert site.said[-1].endswith("is there already, and stays")


async def test_link_in_the_place_of_what_was_restored_is_not_followed(site):
    secret = site.root / "secret"
    secret.write_bytes(b"secret")
    (site.target / "web.fd").unlink()
    (site.target / "web.fd").symlink_to(secret)
    with pytest.raises(StorageError):
        await site.give()
    site.inside = f"<os><nvram>{site.target / 'web.fd'}</nvram></os>"
    with pytest.raises(StorageError):
        await site.give()
    assert not site.nvram.exists()
    assert site.leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_file_that_stays_in_the_target_belongs_to_whom_it_belonged(site):
    site.inside = f"<os><nvram>{site.target / 'web.fd'}</nvram></os>"
    await site.give()
    assert (site.target / "web.fd").owner() == OWNER
    root = site.root / "of-root"
    root.touch()
    (site.target / "web.fd").unlink()
    (site.target / "web.fd").hardlink_to(root)
    await site.give()
    assert root.stat().st_uid == os.geteuid()


async def test_files_that_are_replaced_in_place(site):
    site.nvram.touch()
    site.tpm.mkdir(parents=True)
    (site.tpm / "tpm2-00.permall").touch()
    assert await site.paths() == {
        "web.fd": site.nvram,
        "tpm-tpm2-00.permall": site.tpm / "tpm2-00.permall",
    }
    assert site.said == []


async def test_tpm_file_that_is_no_file_is_not_replaced(site):
    site.tpm.mkdir(parents=True)
    (site.tpm / "tpm2-00.permall").symlink_to("/etc/passwd")
    assert await site.paths() == {"web.fd": site.nvram}
    (site.tpm / "tpm2-00.permall").unlink()
    assert await site.paths() == {"web.fd": site.nvram}
    assert len(site.said) == 2


async def test_nvram_of_another_format_is_not_replaced(site):
    site.state = [restored("nvram", "web.fd", "web.fd", image_format="qcow2")]
    assert await site.paths() == {}
    assert "is raw now" in site.said[0]


async def test_state_without_a_place_replaces_nothing(site):
    site.inside = "<os><nvram type='block'><source dev='/dev/x'/></nvram></os>"
    assert await site.paths() == {}
    assert len(site.said) == 2
