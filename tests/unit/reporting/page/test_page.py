"""The page as a document: what it says, that it is whole, and that no name breaks it.

A browser looks at it in tests/e2e/test_page_in_browser.py.
"""

import re
import subprocess
import sys
from datetime import UTC

import pytest

from fakes.overview_facts import (
    DAY,
    GIB,
    HOUR,
    MIB,
    NIGHT,
    NOW,
    backup,
    domain_run,
    facts,
    guest,
    run,
    target,
)
from fakes.overview_site import site_facts
from html_document import Document
from virtbackup_async.model.facts import Leftover, RunningBackup
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.page.page import render_page
from virtbackup_async.reporting.page.words import CROSS, GLYPHS
from virtbackup_async.reporting.text import command_line

HOSTILE = '\x1b[31m<script>alert("1")</script>\u202e&amp;\x00\udcff日本語 \'"'


def page(*guests, zone=UTC, took_s=None, mailed=None, **different):
    overview = build_overview(facts(*guests, **different), zone)
    return Document(render_page(overview, zone, took_s=took_s, mailed=mailed))


def section(document, title):
    """The words of a section, in one line."""
    return " ".join(document.text.rsplit(f"\n{title}\n", 1)[1].split())


@pytest.fixture(scope="module")
def site_html():
    return render_page(build_overview(site_facts(), UTC), UTC)


@pytest.fixture(scope="module")
def site(site_html):
    return Document(site_html)


def test_the_verdict_comes_first_and_what_to_do_next(site):
    words = [line.strip() for line in site.text.splitlines() if line.strip()]
    assert words[1].startswith("host1 Monday 30 November 2026, 08:00 UTC")
    assert words[2] == f"{CROSS} 2 of 23 guests cannot be restored to last night: ns2 and db-1."
    titles = re.findall(r"<h2[^>]*>([^<]*)", render_page(build_overview(site_facts(), UTC), UTC))
    assert titles == [
        "What to do now",
        "The last 35 days",
        "Guests, the worst first",
        "Not protected",
        "Last night",
        "What the guests felt",
        "Space",
        "Where it grows",
        "What is proven",
        "What stays, and what goes when",
        "Changes in 7 days",
    ]


def test_it_is_one_file_that_runs_nothing_and_asks_nobody(site, site_html):
    assert not {"script", "link", "img", "iframe", "form", "object"} & {tag for tag, _ in site.tags}
    assert not any(name.startswith("on") for _, values in site.tags for name in values)
    assert not re.search(r"(https?:)?//|url\(|@import", site_html)
    assert all(link.startswith("#") for link in site.links)
    (policy,) = (v["content"] for t, v in site.tags if "http-equiv" in v)
    assert policy.startswith("default-src 'none';")


def test_every_anchor_resolves_and_no_name_is_twice(site):
    assert len(set(site.ids)) == len(site.ids)
    assert {link[1:] for link in site.links} <= set(site.ids)
    labels = {v["aria-labelledby"] for _, v in site.tags if "aria-labelledby" in v}
    assert labels <= set(site.ids)
    assert len(site.links) == 10 + 24


def test_no_cell_says_something_by_its_colour_alone(site):
    kinds = {kind.value: glyph for kind, glyph in GLYPHS.items() if glyph}
    cells = [v for tag, v in site.tags if tag == "td" and v.get("class") in kinds]
    assert len(cells) > 600
    assert all(v["title"] for v in cells)
    html = render_page(build_overview(site_facts(), UTC), UTC)
    for kind, glyph in re.findall(r'<td class="([a-z])" title="[^"]*">([^<]*)</td>', html):
        assert glyph == kinds.get(kind, "")


def test_many_guests_in_order_are_folded_and_the_others_are_not():
    document = page(*(guest(f"vm{number:03}") for number in range(200)), guest("db", []))
    assert document.text.count("200 guests in order") == 2
    start = document.text.index("Guests, the worst first")
    assert document.text.index("db", start) < document.text.index("200 guests in order", start)
    few = page(guest("a"), guest("b"))
    assert "in order" not in few.text


def test_names_that_are_hostile_are_escaped_twice():
    bad = guest(
        HOSTILE,
        [backup(0, not_quiesced=HOSTILE, lacks=((HOSTILE, HOSTILE),), full_reason=HOSTILE)],
        group=HOSTILE,
        broken=[(HOSTILE, NIGHT - DAY, HOSTILE)],
    )
    failed = domain_run(HOSTILE, group=HOSTILE, outcome=Outcome.FAILED, error=HOSTILE)
    odd = domain_run("x", phases=((HOSTILE, 1.0),), start=NIGHT + 20.0)
    overview = build_overview(
        facts(
            bad,
            guest("db", []),
            targets=[
                target(
                    history=[
                        run(0, [failed, odd], error=HOSTILE),
                        run(1, exit_code=1, error=HOSTILE),
                    ],
                    groups=(HOSTILE,), problems=(HOSTILE,), unclaimed=(HOSTILE,),
                ),
                target(HOSTILE, groups=(HOSTILE,), error=HOSTILE),
            ],
            groups=((HOSTILE, False),),
            host=HOSTILE, config=HOSTILE, version=HOSTILE,
            unclaimed=(HOSTILE,),
            running=(RunningBackup(HOSTILE, HOSTILE, NIGHT, HOSTILE),),
            leftovers=(Leftover(HOSTILE, HOSTILE, (HOSTILE,)),),
        ),
        UTC,
    )  # fmt: skip
    html = render_page(overview, UTC)
    html.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\u2066-\u2069\ufeff]", html)
    document = Document(html)
    assert "script" not in {tag for tag, _ in document.tags}
    assert '\\x1b[31m<script>alert("1")</script>\\u202e&amp;\\x00\\udcff日本語' in document.text
    assert not any(name.startswith("on") for _, values in document.tags for name in values)


def test_a_command_is_quoted_for_the_shell_and_left_out_where_it_cannot_be_typed():
    assert command_line(("virtbackup", "backup", "--", "a b;rm")) == "virtbackup backup -- 'a b;rm'"
    assert command_line(("virtbackup", "\x1b]0;")) == ""
    assert command_line(()) == ""


def test_an_unreadable_target_is_in_the_first_sentence_and_nothing_says_all():
    away = target(error="/mnt/backups: not mounted")
    document = page(guest("web", []), targets=[away])
    assert "The target /mnt/backups cannot be read" in document.text.split("What to do now")[0]
    assert "All" not in document.text.split("What to do now")[0]
    assert "It cannot be read: /mnt/backups: not mounted" in document.text
    cells = {v["class"] for t, v in document.tags if t == "td" and len(v.get("class", "")) == 1}
    assert cells == {"u"}


@pytest.mark.parametrize(
    "different", [{"groups": (), "targets": []}, {"targets": []}, {}], ids=["groups", "targets", ""]
)
def test_an_empty_site_is_a_page_too(different):
    document = page(**different)
    assert "Nothing is backed up" in document.text
    assert "There is no guest." in document.text


def test_a_first_backup_is_a_page_too():
    first = backup(0, stored_bytes=0, data_bytes=0, size_bytes=0, verified=None)
    document = page(guest(backups=[first]), targets=[target(history=[run(0, [domain_run()])])])
    assert "The only guest, web, can be restored to last night." in document.text
    assert "It is too early for a forecast: 0 days of history." in section(document, "Space")


def test_the_page_says_what_each_part_is_about(site):
    assert "Guests in no group lab-7, win11-test" in section(site, "Not protected")
    assert "erp vdc: its image is missing" in section(site, "Not protected")
    assert "Groups without autostart manual" in section(site, "Not protected")
    night = section(site, "Last night")
    assert night.startswith("30 Nov 02:00 to 02:15, 15 min 00 s: 1 run, 20 guests.")
    assert "db-1 db-1, 02:10 to 02:11, failed: vda: the snapshot was refused" in night
    assert "713.0 GiB of 1000.0 GiB used (71 %), 287.0 GiB free." in section(site, "Space")
    assert re.search(r"Full about \d+ \w+( \d+)? \(", section(site, "Space"))
    growth = section(site, "Where it grows")
    assert re.search(r"mail ?\d\.\d times the usual since Wednesday: 800\.0 MiB a day", growth)
    assert re.search(
        r"\d+ good, \d+ unverified, 1 damaged, 1 broken", section(site, "What is proven")
    )
    felt = section(site, "What the guests felt")
    assert re.search(r"cache-1 ?much longer than usual 30 Nov 02:03 2400 ms 300 ms 2400 ms", felt)
    assert "15 guests that felt less are not listed." in felt
    changes = section(site, "Changes in 7 days")
    assert "28 Nov 02:00 host1: virtbackup 1.3.0, 1.2.0 before" in changes
    assert "29 Nov 02:00 app-1: vdb is new" in changes
    stays = section(site, "What stays, and what goes when")
    assert "production, as seen on web-1: 15 backups, the next goes" in stays


def test_a_cell_says_when_what_how_long_and_why():
    history = [run(0, [domain_run()])]
    document = page(
        guest(
            backups=[backup(0, not_quiesced="no guest agent", full_reason="its bitmap was lost")]
        ),
        targets=[target(history=history)],
    )
    assert (
        "30 Nov 02:00, made, not quiesced or incomplete, not quiesced: no guest agent, "
        "read 400.0 MiB, stored 200.0 MiB, read in full: its bitmap was lost, frozen 300 ms, "
        "took 2 min 00 s"
    ) in document.titles


def test_the_times_are_those_of_the_zone():
    from zoneinfo import ZoneInfo  # noqa: PLC0415 -- one test has a zone

    document = page(guest(), zone=ZoneInfo("Asia/Kathmandu"))
    assert "Monday 30 November 2026, 13:45 +0545" in document.text
    assert "30 Nov 07:45" in document.text


def test_how_long_it_took_and_when_it_was_mailed():
    document = page(guest(), took_s=1.25, mailed=NOW - 5)
    assert "in 1.2 s" in document.text
    assert ("meta", {"name": "virtbackup-mailed", "content": str(NOW - 5)}) in document.tags
    assert "virtbackup-mailed" not in {v.get("name") for _, v in page(guest()).tags}


def test_a_long_night_is_drawn_in_part():
    domains = [domain_run(f"vm{n:03}", start=NIGHT + n, end=NIGHT + n + 60 + n) for n in range(99)]
    domains.append(domain_run("bad", outcome=Outcome.FAILED, end=NIGHT + 12.0))
    document = page(guest(), targets=[target(history=[run(0, domains)])])
    night = section(document, "Last night")
    assert "76 guests that took less long are not drawn." in night
    assert "bad" in night
    assert "vm000" not in night


def test_what_clean_would_free_is_said_where_it_is_known():
    expired = guest(backups=[backup(9, expires=True), backup(0)])
    known = page(expired, targets=[target(expired_bytes=3 * GIB)])
    assert "1 backup would go with the next clean, which frees 3.0 GiB." in section(known, "Space")
    assert "Remove the expired backup in /mnt/backups: that frees 3.0 GiB." in known.text
    unknown = page(expired)
    assert "1 backup would go with the next clean." in section(unknown, "Space")
    assert "Remove the expired backup in /mnt/backups." in unknown.text


def test_growth_of_one_guest_and_of_none():
    calm = page(guest())
    assert "No guest adds more than usual." in calm.text
    idle = page(guest(backups=[backup(20)]))
    assert "Nothing was added in the last 7 days." in idle.text


def test_a_lock_that_is_older_than_a_day_is_looked_at():
    document = page(guest(), running=(RunningBackup("db", "y", NOW - 2 * DAY, "clean", 4711),))
    assert "See why db has been locked for 2 days: clean, process 4711." in document.text
    young = page(guest(), running=(RunningBackup("db", "y", NOW - 60, "clean", 4711),))
    assert "has been locked" not in young.text


def test_what_is_left_and_what_runs_is_said():
    document = page(
        guest(),
        leftovers=(Leftover("web", "backup x was killed", ("virtbackup", "clean", "-b")),),
        running=(
            RunningBackup("db", "y", NOW - HOUR, "backup of group main", 4711),
            RunningBackup("mail", "y", NOW - HOUR),
        ),
    )
    assert "1 leftover of killed backups" in document.text
    assert "db: backup of group main since 30 Nov 07:00, process 4711." in document.text
    assert "mail: backup since 30 Nov 07:00." in document.text
    assert "virtbackup clean -b" in document.text


def test_amounts_that_are_odd_are_no_error():
    huge = backup(0, stored_bytes=2**63 - 1, data_bytes=2**63 - 1, frozen_ms=0)
    zero = target(used_bytes=0, free_bytes=0, history=[run(9, used_bytes=0, free_bytes=0)])
    document = page(
        guest(backups=[huge, backup(date=0), backup(date=253402214400)]), targets=[zero]
    )
    assert "8192.0 PiB" in document.text
    assert f"{MIB}" not in document.text or GIB


def test_jinja_is_loaded_only_where_a_page_is_made():
    program = (
        "import sys, virtbackup_async.reporting.page.page as page\n"
        "import virtbackup_async.cli.commands.report, virtbackup_async.reporting.page.mail\n"
        "print('jinja2' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
