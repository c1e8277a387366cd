"""Names: ordinary ones stay, hostile ones stay inside the target, and none is too long."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.model import names
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

WHEN = datetime(2026, 3, 1, 2, 15, tzinfo=UTC)
T = StorageLocation.of("/t")
ANY_TEXT = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from("%/.2F25\x00~\udc80")), max_size=300
)


def test_name_is_virt_backups():
    local = WHEN.astimezone().strftime("%Y%m%d-%H%M%S")
    assert names.backup_name("web", 3, WHEN) == f"{local}_3_web"
    assert names.backup_name("web", -1, WHEN) == f"{local}_-1_web"


@pytest.mark.parametrize("domain", ["web", "my web 01", "søndag", "東京", "100%", "a%zz", "x.y"])
def test_ordinary_names_stay(domain):
    assert names.domain_directory(T, domain) == TargetFile(T, domain)
    assert names.backup_name(domain, 1, WHEN).endswith(f"_1_{domain}")


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("../x", "%2E.%2Fx"),
        ("..", "%2E."),
        (".", "%2E"),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a\0b", "a%00b"),
        ("a\nb", "a%0Ab"),
        ("a\x9bb", "a%C2%9Bb"),
        ("\0", "%00"),
        ("", "%20"),
    ],
)
def test_hostile_names_become_one_component(domain, expected):
    assert names.domain_directory(T, domain) == TargetFile(T, expected)


@given(ANY_TEXT)
def test_any_domain_stays_below_the_target(domain):
    directory = names.domain_directory(T, domain)
    assert directory.parent == TargetFile(T)
    assert names.is_plain_name(directory.name)
    assert names.is_plain_name(names.backup_name(domain, 2147483647, WHEN))


@given(ANY_TEXT, ANY_TEXT, st.text(max_size=40))
def test_longest_files_fit(domain, dev, image_format):
    name = names.backup_name(domain, 2147483647, WHEN)
    file = names.disk_file(name, dev, image_format)
    longest = f"{name}_{file}.zstd"
    assert len(name.encode()) <= names.NAME_MAX_BYTES
    assert len(longest.encode()) <= 255
    assert file.startswith(f"{name}_")
    assert names.is_plain_name(file)


@given(ANY_TEXT, ANY_TEXT.filter(bool))
def test_longest_state_files_fit(domain, file):
    name = names.backup_name(domain, 2147483647, WHEN)
    packed = names.state_file(name, "tpm", file)
    assert len(f"{name}_{packed}.zstd".encode()) <= 255
    assert packed.startswith(f"{name}_tpm-")
    assert names.is_plain_name(packed)


def test_state_files_have_names_of_their_own():
    assert names.state_file("n", "nvram", "web_VARS.fd") == "n_nvram.fd"
    assert names.state_file("n", "tpm", "tpm2-00.permall") == "n_tpm-tpm2-00.permall"


@pytest.mark.parametrize("suffix", ["json", "json.pending", "json.removed", "map"])
@pytest.mark.parametrize("stem", ["web", "x" * 60, "20260301-021500_3_web", ""])
def test_no_state_file_is_called_like_a_definition(stem, suffix):
    file = f"{stem}.{suffix}"
    packed = names.state_file("20260301-021500_3_web", "varstore", file)
    assert not packed.endswith((".json", ".pending", ".removed", ".map"))
    assert packed != names.state_file("20260301-021500_3_web", "varstore", f"{stem}%2E{suffix}")


def test_disk_files_are_virt_backups():
    assert names.disk_file("n", "vda", "qcow2") == "n_vda.qcow2"
    assert names.disk_file("n", "vdaa-backing64", "qcow2") == "n_vdaa-backing64.qcow2"


@given(ANY_TEXT, ANY_TEXT)
def test_two_domains_never_share_a_name(one, other):
    same = names.domain_directory(T, one) == names.domain_directory(T, other)
    assert same == (one == other)


def test_long_domains_with_a_common_start_differ():
    one, other = (names.backup_name("d" * 200 + end, 1, WHEN) for end in "ab")
    assert one != other
    assert len(one) == len(other)


def test_overlay_stands_beside_its_image():
    assert names.overlay_path(Path("/i/vda.qcow2"), "k3") == Path("/i/vda.qcow2.vbk-k3")


def test_overlay_of_the_longest_image_fits():
    overlays = {names.overlay_path(Path("/i") / ("é" * 127 + end), "ab12") for end in "xy"}
    assert len(overlays) == 2
    for overlay in overlays:
        assert len(overlay.name.encode()) <= 255
        assert overlay.name.endswith(".vbk-ab12")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "a/b", "/a", "a\0", "a\n", "\x1b[m", "x" * 256, "\udc80"]
)
def test_names_that_are_not_plain(name):
    assert not names.is_plain_name(name)


@pytest.mark.parametrize("name", ["20191001-003401_3_a b_vda.qcow2", "é", "a%2Fb", "x" * 255])
def test_names_that_are_plain(name):
    assert names.is_plain_name(name)


def test_temporary_names_are_known():
    image = Path("/images/web.qcow2")
    part = names.part_path(image, "0a0b0c0d")
    scratch = names.scratch_path(Path("/images"), "web.qcow2", "0a0b0c0d")
    overlay = names.overlay_path(image, "0a0b0c0d")
    assert part == Path("/images/web.qcow2.vbk-0a0b0c0d.part")
    assert [*map(names.is_part, (part, scratch, overlay, image))] == [True, False, False, False]
    assert [*map(names.is_scratch, (part, scratch, overlay, image))] == [False, True, False, False]
    assert not names.is_part(Path("/images/.vbk-0a0b0c0d.part"))
    assert not names.is_part(Path("/images/web.vbk-0a0b0c0.part"))
    assert names.is_temporary(names.temporary_name())
    assert names.temporary_name() != names.temporary_name()
    assert not names.is_temporary(".virtbackup-.tmp")
    assert len(names.part_path(Path("/images") / ("n" * 255), "0a0b0c0d").name) == 255
