"""Whoever can write to a target must not make an undo touch any other file of the host."""

import pytest

from fakes.hostile_target import (
    HostileTarget,
    make_image,
    make_overlay,
    snapshot_of,
)

GONE = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def hostile(tmp_path):
    return HostileTarget(tmp_path)


async def cleaned_without_harm(hostile):
    """Clean, and prove that nothing but the target's own files changed, nor the domain."""
    before = snapshot_of(hostile.images, hostile.etc)
    sides = (hostile.domain.live, hostile.domain.persistent)
    await hostile.clean()
    assert snapshot_of(hostile.images, hostile.etc) == before
    assert (hostile.domain.live, hostile.domain.persistent) == sides
    assert not {"commit", "pivot", "set_persistent_source", "thaw"} & {*hostile.domain.calls}


async def test_an_overlay_in_the_target_is_not_committed_into_what_its_header_names(hostile):
    victim = make_image(hostile.etc / "cron", 7)
    overlay = make_overlay(hostile.directory / "img.vbk-00000000", victim)
    disk = {"src": str(hostile.directory / "img"), "snapshot": str(overlay), "type": "qcow2"}
    hostile.plant({"vda": disk}, uuid=GONE)
    await cleaned_without_harm(hostile)
    (left,) = hostile.left
    assert str(overlay) in left.error
    # Nor is a person told to do it.
    assert "qemu-img commit" not in left.error


async def test_nor_where_the_overlay_lies_beside_the_images(hostile):
    """A domain that libvirt does not know is left to a person, whatever the header says."""
    overlay = make_overlay(hostile.images / "evil.raw.vbk-00000000", hostile.image)
    hostile.plant({"vda": {"src": str(hostile.image), "snapshot": str(overlay)}}, uuid=GONE)
    await cleaned_without_harm(hostile)
    assert f"qemu-img commit -f qcow2 {overlay}" in hostile.left[0].error


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("version", ["1.0.0", "0.5.6", "0.1"])
@pytest.mark.parametrize("dev", ["vda", "zzz"])
@pytest.mark.parametrize(
    "names",
    [("other.x", "other.qcow2"), ("other", "other.vbk-00000000"), ("other.x", "other.1569890041")],
)
async def test_no_file_is_removed_that_is_called_an_overlay(
    hostile, committed, version, dev, names
):
    src, snapshot = (hostile.images / name for name in names)
    make_image(snapshot, 9)
    disk = {"src": str(src), "snapshot": str(snapshot), "committed": committed}
    hostile.plant({dev: disk}, version=version)
    await cleaned_without_harm(hostile)
    (left,) = hostile.left
    assert "may have made the pending file up" in left.error
    assert "rm " not in left.error


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("version", ["1.0.0", "0.5.6"])
async def test_a_snapshot_of_the_admins_own_is_not_committed(hostile, active, version):
    own = make_overlay(hostile.images / "evil.snap1.qcow2", hostile.image)
    hostile.domain.persistent = {"vda": own}
    hostile.domain.live = {"vda": own} if active else None
    disk = {"src": str(hostile.image), "snapshot": str(own)}
    hostile.plant({"vda": disk}, version=version)
    await cleaned_without_harm(hostile)
    assert str(own) in hostile.left[0].error
    assert "blockcommit" not in hostile.left[0].error


async def test_an_overlay_is_committed_only_into_the_image_that_its_header_names(hostile):
    other = make_image(hostile.images / "other.raw", 9)
    overlay = make_overlay(hostile.images / "evil.raw.vbk-00000000", other)
    hostile.domain.persistent = {"vda": overlay}
    hostile.plant({"vda": {"src": str(hostile.image), "snapshot": str(overlay)}})
    await cleaned_without_harm(hostile)
    assert str(other) in hostile.left[0].error


async def test_nothing_inside_a_target_is_an_image(hostile):
    """Whoever writes there writes its header as well."""
    image = make_image(hostile.directory / "evil.raw", 1)
    overlay = make_overlay(hostile.directory / "evil.raw.vbk-00000000", image)
    hostile.domain.persistent = {"vda": overlay}
    hostile.plant({"vda": {"src": str(image), "snapshot": str(overlay)}})
    await cleaned_without_harm(hostile)
    assert "target" in hostile.left[0].error
    assert image.read_bytes()[:1] == b"\x01"


async def test_scratch_images_and_sockets_of_others_stay(hostile):
    scratch = make_image(hostile.images / "other.raw.vbk-0a0b0c0d.scratch", 3)
    socket = make_image(hostile.etc / "vbk-0a0b0c0d.sock", 3)
    disk = {"src": str(hostile.image), "scratch": str(scratch)}
    hostile.plant({"vda": disk}, socket=str(socket), quiesce=True)
    await cleaned_without_harm(hostile)
    assert f"rm {scratch}" in hostile.left[0].error


async def test_no_bitmap_is_removed_from_an_image_that_a_target_names(hostile):
    checkpoint = "virtbackup-0a0b0c0d-11111111-2222-3333-4444-555555555555"
    disk = {"src": str(hostile.image), "type": "qcow2", "tracked": True}
    hostile.plant({"vda": disk}, socket="/run/vbk-0a0b0c0d.sock", checkpoint=checkpoint)
    await cleaned_without_harm(hostile)
    assert "delete_checkpoint" not in hostile.domain.calls


async def test_what_nothing_is_left_of_is_forgotten(hostile):
    """Nor does a pending file stay for ever that tells of nothing."""
    overlay = hostile.images / "evil.raw.vbk-00000000"
    path = hostile.plant({"vda": {"src": str(hostile.image), "snapshot": str(overlay)}})
    package = hostile.directory / f"{path.name.removesuffix('.json.pending')}_vda.raw"
    package.write_bytes(b"half")
    await cleaned_without_harm(hostile)
    assert hostile.undone
    assert list(hostile.directory.iterdir()) == []


@pytest.mark.parametrize("version", ["1.0.0", "0.5.6"])
async def test_what_libvirt_and_the_header_bear_out_is_undone(hostile, version):
    """As virt-backup leaves it, or a program whose notes were lost."""
    name = {"1.0.0": "evil.raw.vbk-00000000", "0.5.6": "evil.1569890041"}[version]
    overlay = make_overlay(hostile.images / name, hostile.image)
    hostile.domain.persistent = {"vda": overlay}
    disk = {"src": str(hostile.image), "snapshot": str(overlay)}
    path = hostile.plant({"vda": disk}, version=version)
    await hostile.clean()
    assert hostile.undone, hostile.left
    assert hostile.domain.persistent == {"vda": hostile.image}
    assert hostile.image.read_bytes()[:1] == b"\x02"
    assert not overlay.exists()
    assert not path.exists()
