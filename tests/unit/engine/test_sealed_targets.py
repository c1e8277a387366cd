"""A group that is sealed: its host backs up, verifies and cleans; the recovery key restores."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from virtbackup_async import Passphrase, RecoveryKey, open_virtbackup
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.copy.after_backup import copy_new_backups
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import BackupDone, CopyDone, CopyFailed, Level
from virtbackup_async.repository import (
    Key,
    key_of_file,
    key_of_passphrase,
    new_paper,
    open_key_changes,
    written_on_paper,
)
from virtbackup_async.repository.keys import slots

IMAGE = b"\0" * 65536 + bytes(range(256)) * 2048
HINT = "--recovery"


class SealedSite(Site):
    """A host whose one group is sealed, into a directory; the paper is elsewhere."""

    def __init__(self, root):
        self.image = root / "vda.raw"
        self.image.write_bytes(IMAGE)
        self.key_file, self.public = root / "host.key", root / "recovery.pub"
        self.paper = written_on_paper(new_paper(self.public))
        super().__init__(
            root,
            DescribedDomain({"vda": self.image}),
            packager="repository",
            method="snapshot",
            encryption={"key_file": str(self.key_file), "sealed_for": str(self.public)},
        )

    def command(self, *words, typed="", code=0, **environment):
        """Run the program; what it printed, on both streams."""
        self.configure()
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(self.root / "config.yml")]
        ended = subprocess.run(
            [*argv, *words], input=typed, capture_output=True, text=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        said = ended.stdout + ended.stderr
        assert ended.returncode == code, said
        assert self.letters not in said
        return said

    @property
    def letters(self):
        return self.paper.partition(":")[2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    return SealedSite(tmp_path)


@pytest.fixture
async def done(site):
    done = await site.back_up()
    assert isinstance(done, BackupDone), done
    return done


async def test_a_host_goes_on_and_checks_what_it_cannot_read(site):
    first = await site.back_up()
    assert isinstance(first, BackupDone), first
    (warning,) = site.warnings()
    assert str(site.public) in warning
    site.image.write_bytes(IMAGE[::-1])
    second = await site.back_up()
    assert isinstance(second, BackupDone), second
    assert site.warnings() == []
    assert await site.verify() == [first.backup, second.backup]


async def test_a_group_that_is_sealed_refuses_another_repository(site, tmp_path):
    site.group["encryption"] = {"key_file": str(site.key_file)}
    await site.back_up()
    site.group["encryption"]["sealed_for"] = str(site.public)
    with pytest.raises(ConfigError, match="not sealed") as error:
        await run_backup(site.runtime(), BackupRequest())
    assert error.value.exit_code == 2


async def test_a_run_without_the_public_key_writes_nothing(site):
    site.public.unlink()
    with pytest.raises(ConfigError, match="missing public key") as error:
        await run_backup(site.runtime(), BackupRequest())
    assert "key paper --public" in error.value.hint
    assert site.left() == []
    assert not site.key_file.exists()


async def test_doctor_finds_a_public_key_that_is_missing_before_a_run_does(site):
    async def problems():
        found = await run_doctor(site.runtime(), DoctorRequest())
        return [(one.level, one.message) for one in found if one.code == "public_key_unusable"]

    assert await problems() == []
    site.public.chmod(0o666)
    ((level, message),) = await problems()
    assert (level, "others may use public key" in message) == (Level.PROBLEM, True)
    site.public.unlink()
    ((_, message),) = await problems()
    assert "missing public key" in message


async def restored(vb, place):
    found = await vb.find("fake@latest")
    await vb.restore(found, place)
    (image,) = place.glob("*.raw")
    return image.read_bytes()


async def test_a_program_opens_it_with_the_recovery_key(site, done, tmp_path):
    config = site.configure()
    asked = []

    def ask():
        asked.append(None)
        return site.paper.encode()

    async with open_virtbackup(config, key=RecoveryKey(ask)) as vb:
        assert await restored(vb, tmp_path / "one") == IMAGE
        assert (await vb.verify()).damaged == ()
    assert asked == [None]
    async with open_virtbackup(target=site.target, key=RecoveryKey(site.letters)) as vb:
        assert await restored(vb, tmp_path / "two") == IMAGE
    async with open_virtbackup(config) as vb:
        assert len((await vb.list()).backups) == 1
        with pytest.raises(ConfigError, match="only the recovery key opens it"):
            await restored(vb, tmp_path / "three")


async def test_a_program_opens_it_with_a_passphrase(site, done, tmp_path):
    changes = open_key_changes(site.configure().groups["all"].target, key_of_file(site.key_file))
    changes.add(key_of_passphrase("long enough"), "admin", slots.Cost(1, 1, 64))
    for given in ("long enough", b"long enough", lambda: "long enough"):
        async with open_virtbackup(target=site.target, key=Passphrase(given)) as vb:
            (found,) = (await vb.list()).backups
            assert found.backup == done.backup
            with pytest.raises(ConfigError, match="only the recovery key"):
                await restored(vb, tmp_path / "place")


@pytest.mark.parametrize(
    "key",
    [RecoveryKey("MRSW"), RecoveryKey(b""), Passphrase("another one"),
     RecoveryKey("MRSW-MZ3I-NFVG-W3DN-NZXX-A4LS-ON2H-K5TX-PB4X-U634-PV7H-7AEB-QKBY-CYHO")],
)  # fmt: skip
async def test_a_key_that_does_not_fit_opens_nothing(site, done, key):
    with pytest.raises(ConfigError):
        async with open_virtbackup(target=site.target, key=key) as vb:
            await vb.list()


async def test_a_key_goes_with_encrypted_targets_and_no_key_file(site, tmp_path):
    site.group = {"packager": "repository"}
    with pytest.raises(ConfigError, match="no group is encrypted"):
        async with open_virtbackup(site.configure(), key=Passphrase("long enough")):
            pass
    with pytest.raises(ConfigError, match="either a key file or another key"):
        async with open_virtbackup(target=site.target, key_file="k", key=Passphrase("x")):
            pass


async def test_commands_ask_for_the_recovery_key(site, done, tmp_path):
    place = tmp_path / "place"
    said = site.command("restore", "fake", str(place), code=2)
    assert "only the recovery key opens it" in said
    assert HINT in said
    site.command("restore", "fake", str(place), "--recovery", typed=f"{site.paper}\n")
    assert next(place.glob("*.raw")).read_bytes() == IMAGE
    kept = tmp_path / "paper"
    kept.write_text(f"# a note\n{site.letters.lower()}\n")
    image = tmp_path / "image.raw"
    export = ("export", "fake", "vda", str(image), "--format", "raw")
    site.command(*export, "--recovery-file", str(kept))
    assert image.read_bytes() == IMAGE
    said = site.command("verify", "--json", VIRTBACKUP_RECOVERY_FILE=str(kept))
    assert done.backup in said
    kept.write_text("MRSW\n")
    assert "mistyped" in site.command("verify", "--recovery-file", str(kept), code=2)
    kept.write_text("a\nb\n")
    assert "no recovery key" in site.command("verify", "--recovery-file", str(kept), code=2)
    site.command("verify", "--recovery", code=2)


async def test_the_host_verifies_alone_and_finds_a_changed_byte(site, done):
    site.command("verify")
    (pack,) = site.target.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    said = site.command("verify", "--json", code=13)
    failed = [json.loads(line) for line in said.splitlines() if "damaged" in line]
    assert failed


async def test_a_recovery_key_is_made_where_no_target_is(site, tmp_path):
    public = tmp_path / "other.pub"
    argv = [sys.executable, "-m", "virtbackup_async", "key", "paper", "--public", str(public)]
    made = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "virtbackup-recovery-1:" in made.stdout
    assert "virtbackup-public-1:" in public.read_text()
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists already" in again.stderr


async def test_the_keys_of_a_sealed_target_are_listed_as_what_they_are(site, done):
    said = " ".join(site.command("key", "list").split())
    assert "sealed: only the recovery key opens the disks" in said
    assert "no recovery key" not in said


# Copies.


class CopyingSite(SealedSite):
    """A sealed host whose backups are copied into another target."""

    def __init__(self, root):
        super().__init__(root)
        self.other = root / "other"
        self.other.mkdir()
        self.offsite = {"target": str(self.other), "packager": "repository"}

    def configure(self, **groups):
        group = {"hosts": ["r:.*"], **self.group, "copies": ["offsite"]}
        return super().configure(all=group, offsite={"hosts": ["none"], **self.offsite}, **groups)

    async def night(self):
        after_each = partial(copy_new_backups, wait_s=60)
        await run_backup(self.runtime(), BackupRequest(["all"], after_each=after_each))
        return self.of(CopyDone), self.of(CopyFailed)

    async def found_by_doctor(self):
        found = await run_doctor(self.runtime(), DoctorRequest(["all"]))
        return [one.message for one in found if one.code == "copies_sealed"]


@pytest.fixture
def copying(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    return CopyingSite(tmp_path)


async def test_a_host_copies_what_it_cannot_read_into_a_target_of_the_same_keys(copying, tmp_path):
    copying.offsite["encryption"] = copying.group["encryption"]
    assert await copying.found_by_doctor() == []
    for image in (IMAGE, IMAGE[::-1]):
        copying.image.write_bytes(image)
        done, failed = await copying.night()
        assert (len(done), [one.error for one in failed]) == (1, [])
    assert await copying.found_by_doctor() == []
    ids = {
        (path / ".virtbackup-repository/repository").read_bytes()
        for path in (copying.target, copying.other)
    }
    assert len(ids) == 2
    async with open_virtbackup(target=copying.other, key=RecoveryKey(copying.paper)) as vb:
        assert await restored(vb, tmp_path / "place") == IMAGE[::-1]
        assert (await vb.verify()).damaged == ()


async def test_a_copy_that_takes_the_recovery_key_fails_in_one_line(copying, tmp_path):
    own = {"key_file": str(tmp_path / "other.key")}
    for encryption in (own, {**own, "sealed_for": str(copying.public)}, None):
        copying.offsite.pop("encryption", None)
        copying.offsite |= {"encryption": encryption} if encryption else {}
        (message,) = await copying.found_by_doctor()
        assert "only the recovery key opens the backups" in message
        done, failed = await copying.night()
        assert (done, {one.exit_code for one in failed}) == ([], {2})
        assert all("--recovery" in one.advice for one in failed)
        assert [path for path in copying.other.rglob("*") if path.is_file()] == []


async def test_with_the_recovery_key_any_target_takes_copies(copying, tmp_path):
    await copying.back_up()
    config = copying.configure()
    async with open_virtbackup(config, key=RecoveryKey(copying.paper)) as vb:
        run = await vb.copy(str(copying.other), ["all"])
    assert run.ok
    async with open_virtbackup(target=copying.other) as vb:
        assert await restored(vb, tmp_path / "place") == IMAGE


async def test_rotated_keys_part_two_repositories(copying):
    copying.offsite["encryption"] = copying.group["encryption"]
    done, _ = await copying.night()
    assert done, copying.of(CopyFailed)
    location = copying.configure().groups["all"].target
    open_key_changes(location, key_of_file(copying.key_file)).rotate()
    done, (failed,) = await copying.night()
    assert (done, failed.exit_code) == ([], 2)
    assert "does not have the same keys" in failed.error


# Secrets.


async def test_a_run_shows_no_secret_to_anybody(site, tmp_path):
    """Not in events, reports, logs, definitions, notes, and not to programs that it starts."""
    seen, log = tmp_path / "seen", tmp_path / "log"
    site.settings |= {"log": {"file": str(log), "level": "debug"}}
    site.group["hooks"] = {"after": f"env > {seen}"}
    await site.back_up()
    kept = tmp_path / "paper"
    kept.write_text(site.paper)
    recovered = {"VIRTBACKUP_RECOVERY_FILE": str(kept)}
    said = site.command("-v", "verify", **recovered)
    said += site.command("restore", "fake", str(tmp_path / "place"), "--json", **recovered)
    said += site.command("show", "fake", "--json")
    texts = [repr(site.events), said, seen.read_text(), log.read_text()]
    for directory in (tmp_path / "state", site.target):
        files = [path for path in directory.rglob("*") if path.is_file()]
        texts += [path.read_bytes().decode("latin1") for path in files]
    assert "VIRTBACKUP" in seen.read_text()
    assert len(texts) > 10
    host_key = site.key_file.read_text().split(":")[-1].strip()
    found = [Key.of_key_file(site.key_file).secret, Key.of_paper(site.paper).secret]
    words = [host_key, site.letters, *(secret.reveal().hex() for secret in found)]
    words += [secret.reveal().decode("latin1") for secret in found]
    for text in texts:
        for word in words:
            assert word not in text
            assert word.upper() not in text
