"""The examples of docs/how-to/library.md, each run as the program that it is.

Those that ask libvirt are run by tests/integration/test_library.py.
"""

import re
import subprocess
import sys

import pytest

from fakes.site import DAY_S, Site
from fakes.stored_backup import DATE
from library_examples import EXAMPLES, placed

EXPECTED = {
    "Find and restore": r"20260301-\S+_web of 2026-03-01T\S+: vda\n"
    r"20260302-\S+_web of 2026-03-02T\S+: vda\n"
    r"20260303-\S+_web of 2026-03-03T\S+: vda\n"
    r"restored image.raw, web.xml, digests compared: True\n",
    "Look after the backups": r"web (20260302-\S+_web): \1_vda.raw is damaged: .*\n"
    r"keeps 20260303-\S+_web\n"
    r"20260301-\S+_web: remove\n"
    r"20260302-\S+_web: keep\n"
    r"20260303-\S+_web: keep\n"
    r"20260303-\S+_web: \d+ bytes copied to /\S+/usb\n"
    r"production: 3 backups of 1 domains\n",
    "Follow what happens": r"(web: \d+ bytes read\n){3}",
    "Handle errors": r"not found: no backup of wbe in \S+, did you mean 'web'\?\n",
}


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    keeps = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
    site.configure(production={"hosts": ["web"], "keep_last": 1, **keeps})
    for day in range(3):
        await site.store(date=DATE + day * DAY_S)
    return site


@pytest.mark.parametrize("title", EXPECTED)
async def test_an_example_prints_what_its_text_says(site, tmp_path, title):
    if title == "Look after the backups":
        (image,) = (site.target / "web").glob("20260302-*.raw")
        image.write_bytes(b"x" + image.read_bytes()[1:])
    (tmp_path / "usb").mkdir()
    program = placed(EXAMPLES[title], tmp_path / "config.yml", tmp_path / "restored")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert run.stderr == ""
    assert re.fullmatch(EXPECTED[title], run.stdout), run.stdout
    if title == "Find and restore":
        restored = (tmp_path / "restored" / "image.raw").read_bytes()
        assert restored == (tmp_path / "image.raw").read_bytes()


def test_every_example_is_run_here_or_with_libvirt():
    assert set(EXAMPLES) == {*EXPECTED, "Back up"}
