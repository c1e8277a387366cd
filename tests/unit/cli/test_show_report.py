"""What ``show`` prints."""

import shlex
import subprocess
from io import StringIO

import pytest
from msgspec.structs import replace

from fakes.recorded_run import GIB, HOSTILE, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import ShownBackup, ShownDisk, ShownImage, ShownLack

DISK = ShownDisk(
    "vda", "n_vda.raw", "/srv/web.qcow2", "raw", "qcow2", 4 * GIB, 2 * GIB, GIB, GIB // 2,
    "blake3-256k:5e5f", base="the-base", audited_bytes=1024,
    backing=(ShownImage("backing", "b", "/srv/base.raw", "raw", GIB, GIB, GIB, "blake3-256k:77"),),
)  # fmt: skip
SHOWN = ShownBackup(
    "main", "web", "NAME", "/t/web/NAME.json", "/t", "good", "2026-07-01T03:00:00+00:00", 1, 2e5,
    frees_bytes=GIB, uuid="u-u", version="1.1.0", packager="repository", domain_state="running",
    method="pull", quiesced=True, frozen_ms=41, pinned=True, note="before upgrade",
    verified_date="2026-07-02T09:12:00+00:00", has_digests=True, disks=(DISK,),
    skipped=(ShownLack("vdc", "unreadable", "OLDER"), ShownLack("sda", "no medium")),
    commands=("virtbackup restore web@NAME DIRECTORY",),
)  # fmt: skip


def printed(shown, monkeypatch, width=None):
    monkeypatch.setenv("TZ", "UTC")
    report, out = reports.show(), StringIO()
    report.add(shown)
    report.print(text_console(out, width=width), summary())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_all_is_printed_and_the_commands_last(monkeypatch):
    assert printed(SHOWN, monkeypatch) == [
        "web@NAME",
        "  state     good, verified 2026-07-02 09:12:00",
        "  made      2026-07-01 03:00:00, 2 days ago, by version 1.1.0",
        "  note      before upgrade",
        "  pinned    yes: no rule removes it",
        "  domain    web, u-u, running",
        "  method    pull",
        "  quiesced  yes, frozen for 41 ms at most",
        "  without   vdc: unreadable; OLDER has it",
        "  without   sda: no medium",
        "  packager  repository",
        "  group     main",
        "  file      /t/web/NAME.json",
        "  frees     1.0 GiB, if it alone is removed",
        "",
        "dev  disk     used     read     stored     how read",
        "vda  4.0 GiB  2.0 GiB  1.0 GiB  512.0 MiB  changes since the-base, 1.0 KiB compared",
        "",
        "vda /srv/web.qcow2",
        "    as n_vda.raw, raw, was qcow2",
        "    blake3-256k:5e5f",
        "    on /srv/base.raw, raw, 1.0 GiB",
        "    blake3-256k:77",
        "",
        "virtbackup restore web@NAME DIRECTORY",
    ]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"state": "unverified", "verified_date": None}, "state     unverified: run virtbackup"),
        ({"state": "damaged", "verified_error": "one block"}, "09:12:00: one block"),
        ({"state": "broken", "error": "data missing: x"}, "state     broken: data missing: x"),
        ({"quiesced": False, "not_quiesced": "paused"}, "quiesced  no: paused"),
        ({"has_digests": False}, "without digests"),
        ({"age_s": -5.0}, "in the future"),
        ({"disks": (replace(DISK, base=None, reason="no bitmap"),)}, "in full: no bitmap"),
        ({"disks": (replace(DISK, audit_failed=True),)}, "THE COMPARISON FAILED"),
    ],
)
def test_what_matters_is_said(monkeypatch, changed, line):
    assert any(line in one for one in printed(replace(SHOWN, **changed), monkeypatch))


def test_a_digest_fits_into_80_columns(monkeypatch):
    digest = f"blake3-256k:{'0123456789abcdef' * 4}"
    lines = printed(replace(SHOWN, disks=(replace(DISK, digest=digest),)), monkeypatch, width=80)
    assert f"    {digest}" in lines


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_command_to_paste_is_whole_for_a_shell(monkeypatch, width):
    words = [
        "virtbackup", "-c", "/srv/my backup/it's.yml", "restore", "--as", "web-restored",
        "main/web@20260701-030000_3_web", "/var/lib/libvirt/images/$HOME", "", "a\\b",
    ]  # fmt: skip
    shown = replace(SHOWN, domain="w", backup="b", commands=(shlex.join(words),))
    lines = printed(shown, monkeypatch, width=width)
    start = next(number for number, line in enumerate(lines) if line.startswith("virtbackup "))
    pasted = "\n".join(lines[start:])
    result = subprocess.run(
        ["sh", "-c", f"virtbackup() {{ printf '%s\\0' virtbackup \"$@\"; }}\n{pasted}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.split("\0")[:-1] == words
    longest = max(len(shlex.quote(word)) for word in words) + len("   \\")
    assert max(map(len, lines[start:])) <= max(width, longest)


def test_names_reach_the_terminal_escaped(monkeypatch):
    hostile = replace(
        SHOWN,
        domain=HOSTILE, note=HOSTILE, error=HOSTILE, commands=(HOSTILE,),
        disks=(replace(DISK, source=HOSTILE, base=None, reason=HOSTILE),),
        skipped=(ShownLack(HOSTILE, HOSTILE, HOSTILE),),
    )  # fmt: skip
    text = "\n".join(printed(hostile, monkeypatch))
    assert all(character.isprintable() or character == "\n" for character in text)
