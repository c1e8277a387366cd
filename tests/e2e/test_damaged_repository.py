"""The way through a damaged repository, as docs/how-to/damaged-repository.md has it."""

from command import events, virtbackup, write_config

from fakes.shared_site import SharedSite, flip
from fakes.small_repository import content

NOBODY = "qemu+unix:///session?socket=/nonexistent/libvirt-sock"
CHUNK_BYTES = 256 * 1024


async def test_verify_repair_backup_verify(tmp_path):
    site = SharedSite(tmp_path)
    old = await site.store_chunks([1, 2, 3])
    config = write_config(tmp_path, NOBODY, ["web"], target=site.target, packager="repository")

    def run(*words):
        return virtbackup("-c", config, *words)

    assert run("verify").returncode == 0
    (pack,) = site.packs
    flip(pack, pack.stat().st_size - 1)
    assert run("verify", "--quick").returncode == 0, "its length is right"
    found = run("verify")
    assert found.returncode == 13
    assert f"{old.name}  vda  256.0 KiB  524288  786431" in found.stdout
    assert "virtbackup: 1 of 1 backups could not be verified" in found.stderr
    said = events(run("verify", "--json").stdout)
    (damaged,) = [event for event in said if event["event"] == "disk_damaged"]
    assert damaged["ranges"] == [[2 * CHUNK_BYTES, CHUNK_BYTES]]
    target = tmp_path / "restored"
    assert run("restore", "all", "web", target).returncode == 13
    assert not target.exists() or not list(target.iterdir())

    mended = run("repair")
    assert mended.returncode == 13, "a backup is damaged still"
    assert "1 damaged chunk removed from the index, 1 image still incomplete" in mended.stdout
    await site.store_chunks([1, 4, 3], day=1)
    whole = run("repair")
    assert whole.returncode == 0, whole.stderr
    assert "repository: nothing to repair" in whole.stdout
    assert run("restore", "all", "web", target, "--date", old.name).returncode == 0
    assert (target / "of.raw").read_bytes() == content([1, 2, 3])


async def test_damage_that_costs_no_backup_is_told_until_it_is_mended(tmp_path):
    site = SharedSite(tmp_path)
    await site.store_chunks([1])
    config = write_config(tmp_path, NOBODY, ["web"], target=site.target, packager="repository")
    flip(site.packs[0], 20)
    found = virtbackup("-c", config, "verify", "-q")
    assert found.returncode == 13
    assert "a repository is damaged. Run 'virtbackup repair'." in found.stderr
    assert virtbackup("-c", config, "repair", "-q").returncode == 0
    assert virtbackup("-c", config, "verify", "-q").returncode == 0
