"""The page of ``report``, looked at in a real browser: text, links, contrast, width, paper.

Pictures of it are left in the directory that ``VIRTBACKUP_PICTURES`` names.
"""

import os
from datetime import UTC
from pathlib import Path

import pytest

from browser import open_browser
from fakes.overview_facts import backup, facts, guest, target
from fakes.overview_site import site_facts
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.page.page import render_page

WIDTHS = (360, 1280, 1920)
SCHEMES = ("light", "dark")
LONG = "a-guest-with-a-name-that-nobody-would-choose-" * 4
HOSTILE = f'<b>\x1b[31m日本語</b>&"\u202e{LONG}'
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA

OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
# Every piece of text that can be seen, with the contrast of its colour to what is behind it.
CONTRASTS = """
const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = rgb => rgb.slice(0, 3)
  .map(value => channel(value / 255))
  .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
const parse = text => {
  const found = text.match(/[\\d.]+/g).map(Number);
  return found.length === 4 ? found : [...found, 1];
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour;
    if (colour[3] !== 0) throw new Error('half transparent');
  }
  throw new Error('nothing is behind it');
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.data.trim();
  if (!text || element.closest('svg') || !element.checkVisibility()) continue;
  const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
  found.push([(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), text]);
}
return found;
"""
# What reaches beyond the window, or holds more than fits into it.
TOO_WIDE = """
const width = document.documentElement.clientWidth;
const found = [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return element.checkVisibility() && box.width > 1 && (box.right > width + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 200));
return [document.documentElement.scrollWidth - width, found];
"""
LOST_ANCHORS = """
return [...document.querySelectorAll('a')].map(one => one.getAttribute('href'))
  .filter(href => !href.startsWith('#') || !document.getElementById(href.slice(1)));
"""


def many_facts():
    """Two hundred guests, of which some are bad and one has a hostile name."""
    guests = [guest(f"vm-{number:03}") for number in range(196)]
    odd = {"error": HOSTILE, "groups": (HOSTILE,)}
    return facts(
        *guests,
        guest(HOSTILE, [backup(0, not_quiesced=HOSTILE)]),
        guest(LONG, []),
        guest("db", [], broken=[(HOSTILE, None, HOSTILE)]),
        targets=[target(groups=(LONG,)), target(f"/mnt/{LONG}", **odd)],
        unclaimed=(HOSTILE, LONG),
    )


PAGES = {
    "site": site_facts,
    "many": many_facts,
    "few": lambda: facts(guest("web"), guest("db"), guest("mail")),
    "empty": lambda: facts(groups=(), targets=[]),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        html = render_page(build_overview(make(), UTC), UTC, took_s=1.2)
        (directory / f"{name}.html").write_text(html)
    return {name: directory / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    named = os.environ.get("VIRTBACKUP_PICTURES")
    return Path(named) if named else tmp_path_factory.mktemp("pictures")


def test_the_first_sentence_is_what_is_seen_first(browser, pages):
    browser.show(pages["site"], width=1280)
    title, heading, bottom = browser.run(
        "const h1 = document.querySelector('h1');"
        "return [document.title, h1.innerText, h1.getBoundingClientRect().bottom]"
    )
    sentence = "2 of 23 guests cannot be restored to last night: ns2 and db-1."
    assert title == f"{sentence} (host1)"
    assert heading.endswith(sentence)
    assert bottom < 300


@pytest.mark.parametrize("name", PAGES)
def test_the_browser_has_nothing_to_complain_about(browser, pages, name):
    browser.complaints()
    browser.show(pages[name], width=1280)
    browser.run(OPEN_ALL)
    assert browser.complaints() == []
    assert browser.run(LOST_ANCHORS) == []


def test_a_link_leads_to_its_guest_though_it_is_folded(browser, pages):
    browser.show(pages["many"], width=1280)
    is_shown = (
        "const link = [...document.querySelectorAll('.heat a')]"
        ".find(one => one.innerText === 'vm-190' || one.textContent === 'vm-190');"
        "location.hash = link.getAttribute('href');"
        "const row = document.querySelector(link.getAttribute('href'));"
        "return [row.checkVisibility(), row.innerText.includes('vm-190')];"
    )
    assert browser.run(is_shown) == [True, True]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_every_text_is_readable(browser, pages, name, scheme):
    browser.show(pages[name], width=1280, scheme=scheme)
    browser.run(OPEN_ALL)
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 40
    assert [found for found in contrasts if found[0] < LEAST_CONTRAST] == []


def test_a_text_that_is_not_readable_is_noticed(browser, pages):
    browser.show(pages["few"], width=1280)
    browser.run("document.querySelector('h1').style.color = '#f0f0f0'")
    assert min(found[0] for found in browser.run(CONTRASTS)) < 1.5


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(browser, pages, pictures, name, width):
    for scheme in SCHEMES:
        browser.show(pages[name], width=width, scheme=scheme)
        if name == "site":
            browser.picture(pictures / f"{name}-{width}-{scheme}.png")
    assert browser.run(TOO_WIDE) == [0, []]
    browser.run(OPEN_ALL)
    assert browser.run(TOO_WIDE) == [0, []]


def test_what_is_too_wide_is_noticed(browser, pages):
    browser.show(pages["few"], width=360)
    browser.run("document.querySelector('h1').style.width = '500px'")
    beyond, found = browser.run(TOO_WIDE)
    assert beyond > 0
    assert len(found) >= 1


def test_a_small_site_prints_on_one_page_of_paper(browser, pages):
    browser.show(pages["few"], width=1280)
    assert browser.pages_on_paper() == 1
    browser.show(pages["site"], width=1280)
    assert browser.pages_on_paper() <= 3
