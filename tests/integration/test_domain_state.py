"""UEFI variables (NVRAM) and TPM state on real QEMU: in the backup, and back byte for byte."""

import json
import os

import pytest
import yaml
from anyio import to_thread

from e2e.command import events, virtbackup, write_config
from lab.disks import DiskSpec
from lab.domains import LabDomain
from lab_site import LabSite
from recording import Recorder, back_up, configure, leftovers, restore
from virt_backup_program import run_virt_backup

PACKAGERS = ["directory", "tar", "zstd"]
NO_PERIODS = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)


@pytest.fixture
def site(daemon, make_domain, tmp_path, monkeypatch):
    # The daemon keeps TPM state below its own configuration directory, and so do we.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return StateSite(daemon, make_domain, tmp_path)


class StateSite(LabSite):
    """A running domain with flash memory and a TPM; and commands on it."""

    def __init__(self, daemon, make_domain, tmp_path, nvram=None):
        # Where this libvirt keeps such files itself.
        nvram = nvram or daemon.path / "c/libvirt/qemu/nvram/web_VARS.fd"
        domain = make_domain(
            DiskSpec("vda", fs=None), nvram=nvram, tpm=True, agent=False, boot=False
        )
        super().__init__(daemon, domain, tmp_path)
        # Paused: the firmware would change the TPM's state at any time.
        self.domain.start_paused()
        self.uuid = self.domain.xml().findtext("uuid")
        self.nvram = self.nvram_of(self.domain)
        self.tpm = self.tpm_of(self.uuid)

    def nvram_of(self, domain):
        path = domain.xml().findtext("os/nvram")
        return self.daemon.path / path

    def tpm_of(self, uuid):
        return self.daemon.path / "c/libvirt/qemu/swtpm" / uuid / "tpm2/tpm2-00.permall"


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_state_restores_byte_for_byte_running_and_shut_off(site, packager, tmp_path):
    nvram = site.nvram.read_bytes()
    for active in (True, False):
        work = tmp_path / str(active)
        work.mkdir()
        if not active:
            await to_thread.run_sync(site.domain.destroy)
        tpm = site.tpm.read_bytes()
        config = configure(work, site.daemon.uri, [site.name], packager=packager)
        recorder = await back_up(config, Recorder(work / "frozen"))
        assert recorder.done.read_bytes == recorder.done.data_bytes > 0
        restored = await restore(config, site.name, work / "restored")
        assert restored.verified
        assert (work / "restored" / site.nvram.name).read_bytes() == nvram
        assert (work / "restored/tpm-tpm2-00.permall").read_bytes() == tpm
        assert leftovers(work) == []
        assert not list(work.rglob(".virtbackup-*"))


@pytest.mark.parametrize("packager", PACKAGERS)
def test_state_is_verified_and_goes_with_its_backup(site, packager):
    settings = yaml.safe_load(site.config.read_text())
    settings["groups"]["all"].update(packager=packager, keep_last=1, **NO_PERIODS)
    site.config.write_text(yaml.safe_dump(settings))
    site.run("backup")
    first = {path.name for path in (site.target / site.name).iterdir()}
    assert "verify_done" in site.run("verify", "--json").stdout
    site.run("backup")
    site.run("clean")
    second = {path.name for path in (site.target / site.name).iterdir()}
    assert len(second) == len(first)
    assert not first & second
    if packager == "directory":
        (nvram,) = (site.target / site.name).glob("*_nvram.fd")
        with nvram.open("r+b") as file:
            file.write(bytes(1000))
        bad = site.attempt("verify")
        assert bad.returncode == 13


def test_lost_domain_gets_its_state_back(site):
    site.domain.destroy()
    site.run("backup")
    nvram, tpm = site.nvram.read_bytes(), site.tpm.read_bytes()
    site.undefine("--nvram")
    assert not site.nvram.exists()
    assert not site.tpm.exists()

    done = site.restore(site.restored, "--define")

    assert "not what was backed up" not in done.stderr
    assert site.nvram.read_bytes() == nvram
    assert site.nvram.stat().st_mode & 0o777 == 0o600
    assert site.tpm.read_bytes() == tpm
    assert site.tpm.parent.stat().st_mode & 0o777 == 0o700
    assert leftovers(site.daemon.path / "c") == leftovers(site.daemon.images) == []
    site.domain.start()
    assert site.domain.state() == "running"
    assert site.nvram.read_bytes() == nvram


def test_state_that_was_elsewhere_comes_into_the_target(daemon, make_domain, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    # An admin's own place, or one that an intruder wrote into the definition.
    elsewhere = tmp_path / "cron.d"
    elsewhere.mkdir()
    site = StateSite(daemon, make_domain, tmp_path, elsewhere / "x")
    site.domain.destroy()
    site.run("backup")
    nvram = site.nvram.read_bytes()
    site.undefine("--nvram")

    done = site.restore(site.restored, "--define")

    assert list(elsewhere.iterdir()) == []
    assert f"the domain uses {site.restored / 'x'}" in " ".join(done.stderr.split())
    assert site.nvram_of(site.domain) == site.restored / "x"
    site.domain.start_paused()
    assert site.domain.state() == "paused"
    assert (site.restored / "x").read_bytes() == nvram
    assert list(elsewhere.iterdir()) == []


def test_what_is_there_is_kept_and_said(site):
    site.run("backup")
    site.undefine("--keep-nvram")
    site.nvram.write_bytes(b"newer" * 1000)
    done = site.restore(site.restored, "--define")
    assert f"{site.nvram} is there already, and stays" in " ".join(done.stderr.split())
    assert site.nvram.read_bytes() == b"newer" * 1000
    assert (site.restored / site.nvram.name).stat().st_size == 64 << 10


def test_twin_gets_copies_of_its_own(site):
    site.domain.destroy()
    site.run("backup")
    site.domain.start()
    nvram = site.nvram.read_bytes()
    packaged = next((site.target / site.name).glob("*_tpm-*")).read_bytes()
    done = site.restore(site.restored, "--name", "twin", "--json")
    try:
        (defined,) = [event for event in events(done.stdout) if event["event"] == "domain_defined"]
        (warned,) = [event for event in events(done.stdout) if event["event"] == "warning"]
        assert str(site.domain.console) in warned["message"]
        twin = LabDomain(site.daemon, "twin", site.domain.console, agent=False)
        assert site.nvram_of(twin) == site.restored / site.nvram.name
        assert site.nvram_of(twin).read_bytes() == nvram
        assert site.tpm_of(defined["uuid"]).read_bytes() == packaged
        twin.start()
        assert twin.state() == site.domain.state() == "running"
    finally:
        site.daemon.virsh("destroy", "twin")
        site.daemon.virsh("undefine", "twin", "--nvram")


def test_state_is_restored_in_place(site):
    site.run("backup")
    site.domain.destroy()
    (tpm,) = (site.target / site.name).glob("*_tpm-*")
    nvram = site.nvram.read_bytes()
    site.nvram.write_bytes(os.urandom(64 << 10))
    site.nvram.chmod(0o640)
    site.tpm.write_bytes(b"cleared")
    done = site.restore("--in-place", "--json")
    (restored,) = [event for event in events(done.stdout) if event["event"] == "restore_done"]
    assert restored["files"][1:] == [str(site.nvram), str(site.tpm)]
    assert site.nvram.read_bytes() == nvram
    assert site.nvram.stat().st_mode & 0o777 == 0o640
    assert site.tpm.read_bytes() == tpm.read_bytes()
    assert leftovers(site.daemon.path / "c") == leftovers(site.daemon.images) == []
    site.domain.start()
    assert site.domain.state() == "running"


def test_state_that_cannot_be_had_is_said(site, monkeypatch):
    site.domain.destroy()
    site.nvram.unlink()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    done = site.run("backup")
    assert "NVRAM" in done.stderr
    assert "TPM" in done.stderr
    definition = site.definition()
    assert definition["state_files"] == []
    assert str(site.nvram) in definition["skipped"]["nvram"]
    assert site.uuid in definition["skipped"]["tpm"]


NVDIMM = """<memory model='nvdimm' access='shared'><source><path>{}</path></source>
<target><size unit='MiB'>32</size><node>0</node></target></memory>"""
SERIAL = "<serial type='file'><source path='{}'/><log file='{}'/></serial>"
NUMA = """<maxMemory slots='4' unit='MiB'>512</maxMemory>
<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"""


def test_persistent_memory_is_named_and_no_twin_shares_it(daemon, make_domain, tmp_path):
    memory = daemon.images / "nvdimm"
    memory.write_bytes(bytes(32 << 20))
    log, other_log = tmp_path / "serial", tmp_path / "log"
    domain = make_domain(
        DiskSpec("vda", fs=None), agent=False, boot=False, memory=NUMA,
        devices=NVDIMM.format(memory) + SERIAL.format(log, other_log),
    )  # fmt: skip
    config = write_config(tmp_path, daemon.uri, [domain.name], packager="directory")
    domain.start_paused()
    done = virtbackup("-c", config, "backup")
    assert done.returncode == 0, done.stderr
    assert f"nvdimm0: persistent memory in {memory}" in " ".join(done.stdout.split())
    (definition,) = (tmp_path / "target" / domain.name).glob("*.json")
    assert "persistent memory" in json.loads(definition.read_text())["skipped"]["nvdimm0"]
    examined = virtbackup("-c", config, "doctor")
    assert "nvdimm0 is not backed up" in " ".join(examined.stdout.split())

    restored = tmp_path / "restored"
    words = ("restore", "all", domain.name, restored, "--name", "twin", "--start")
    done = virtbackup("-c", config, *words)
    try:
        assert done.returncode == 0, done.stderr
        for path in (memory, log, other_log):
            assert f"{path}" in "".join(done.stderr.split())
            assert str(path) not in daemon.virsh("dumpxml", "twin")
        assert LabDomain(daemon, "twin", domain.console, agent=False).state() == "running"
    finally:
        daemon.virsh("destroy", "twin")
        daemon.virsh("undefine", "twin")
    assert domain.state() == "paused"


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_virt_backup_restores_and_cleans_it(site, virt_backup, packager, tmp_path):
    config = configure(tmp_path, site.daemon.uri, [site.name], packager=packager)
    assert (await back_up(config, Recorder(tmp_path / "frozen"))).done
    theirs = tmp_path / "theirs"
    words = ("restore", "all", site.name, theirs)
    await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)
    image = site.domain.images()["vda"]
    await to_thread.run_sync(site.domain.destroy)
    assert (theirs / image.name).read_bytes() == image.read_bytes()

    settings = yaml.safe_load(config.path.read_text())
    settings["groups"]["all"].update(NO_PERIODS)
    config.path.write_text(yaml.safe_dump(settings))
    said = await to_thread.run_sync(run_virt_backup, virt_backup, config.path, "clean", "-B", "all")
    assert "Backups removed for group all: 1" in said
    left = [path.name for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert all("_nvram" in name or "_tpm-" in name for name in left)
    # Of a directory package it removes what it knows of, file by file.
    assert len(left) == (2 if packager == "directory" else 0)
