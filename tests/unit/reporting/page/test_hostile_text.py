"""Whatever a text of the model holds, the page, the mail and the metrics stay what they are.

Every text of every fact is hostile, all at once. The same facts with harmless texts tell what the
output looks like.
"""

import unicodedata
from datetime import UTC

import pytest
from msgspec.structs import replace

from fakes.events_of_all_kinds import filled
from fakes.overview_facts import DAY, NIGHT, NOW, guest
from html_document import Document
from virtbackup_async.model.facts import Facts
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting import metrics
from virtbackup_async.reporting.health import health_of
from virtbackup_async.reporting.metrics_file import update_metrics
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.page import mail
from virtbackup_async.reporting.page.page import render_page
from virtbackup_async.reporting.text import printable

HARMLESS = "evil"
HOSTILE = {
    "escape": "\x1b[2J\x1b]0;evil\x07\x08\x7f\x9b31m",
    "lines": "evil\r\n\x0b\x0c\x1c\x85\u2028\u2029Bcc: evil",
    "html": "<script>evil()</script><img src=x onerror=evil()>\"'>&amp;{{ 7 }}{% raw %}--></style>",
    "wide": "漢字evil\N{WOMAN}\N{ZERO WIDTH JOINER}\N{WOMAN}e\N{COMBINING CIRCUMFLEX ACCENT}",
    "long": "evil" * 50,
    "reversed": "\u202eevil\u2066\u200f\u061c\u202c\ufeff",
    "shell": "-evil $(evil) `evil` ; evil | evil \\ %s %(x)s",
    "no utf-8": "evil\udcff",
}
FIXED = {
    "at": NOW, "date": NIGHT, "verified_date": NIGHT, "start": NIGHT, "end": NIGHT + 600,
    "max_age_s": 93_600, "is_known": True, "verified": False, "used_bytes": 1 << 40,
    "free_bytes": 1 << 40, "goes": 739_950, "frozen_ms": 900, "of_target": False, "phases": 1,
}  # fmt: skip


def hostile_facts(text):
    """Facts in which everything is there that the page shows, and each text is the same."""
    found = filled(Facts, text=text, fixed=FIXED)
    (one,) = found.guests
    (bad,) = one.backups
    good = replace(bad, verified=True, date=NIGHT - DAY, name=f"{text}2")
    more = replace(bad, verified=True, date=NIGHT, name=f"{text}3", disks=(text, "vdb"))
    (target,) = found.targets
    (run,) = target.history
    (domain,) = run.domains
    domains = (
        replace(domain, outcome=Outcome.FAILED),
        replace(domain, outcome=Outcome.DONE, backup=f"{text}3", method="snapshot"),
        replace(domain, outcome=Outcome.VERIFIED),
    )
    runs = (
        replace(run, run_id="1", command="backup", exit_code=0, domains=domains),
        replace(run, run_id="2", command="backup", exit_code=1, domains=()),
        replace(run, run_id="3", command=text, version=f"{text}2", start=NIGHT - DAY),
    )
    history = guest("calm", target="/calm", group="calm")
    return replace(
        found,
        guests=(
            replace(one, target="/calm", backups=(good, more)),
            replace(one, target="/calm", group=f"{text}4", backups=(bad,)),
            replace(one, target="/calm", domain=f"{text}5", is_known=False, backups=(good,)),
            replace(one, domain=f"{text}6", backups=()),
            history,
        ),
        targets=(target, replace(target, path="/calm", error=None, history=runs)),
        groups=((text, False), ("calm", True)),
    )


def overview_of(text, **different):
    return build_overview(replace(hostile_facts(text), **different), UTC)


def obeyed(text):
    """Return the characters that a terminal or a reader would obey."""
    unsafe = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in unsafe and c != "\n"}


def structure(html):
    """Return the page's elements, without commands: one that cannot be typed is left out."""
    return [tag for tag, _ in Document(html).tags if tag != "code"]


VARIANTS = {"all": {}, "silent": {"hypervisor_error": None}, "target": {"of_target": True}}
texts = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
variants = pytest.mark.parametrize("different", VARIANTS.values(), ids=VARIANTS)


@variants
def test_nearly_everything_is_on_the_page(different):
    document = Document(render_page(overview_of(HARMLESS, **different), UTC))
    assert document.text.count(HARMLESS) > 40
    assert sum(HARMLESS in title for title in document.titles) >= 5


@texts
@variants
def test_the_page_has_the_same_elements_whatever_a_text_says(text, different):
    html = render_page(overview_of(text, **different), UTC)
    html.encode()
    assert obeyed(html) == set()
    assert structure(html) == structure(render_page(overview_of(HARMLESS, **different), UTC))
    document = Document(html)
    assert not any(name.startswith("on") for _, values in document.tags for name in values)
    assert " ".join(printable(text).split()) in " ".join(document.text.split())


@texts
@variants
def test_the_mail_has_the_same_lines_whatever_a_text_says(text, different):
    sent, usual = (mail.text(overview_of(one, **different), UTC) for one in (text, HARMLESS))
    sent.encode()
    assert obeyed(sent) == set()

    def lines(body):
        return [line[:1] for line in body.split("\n") if not line.startswith("    ")]

    assert lines(sent) == lines(usual)
    subject = mail.subject(overview_of(text, **different))
    assert subject.isprintable()
    assert subject.encode()


@texts
async def test_the_metrics_have_the_same_lines_whatever_a_text_says(tmp_path, text):
    file = tmp_path / "virtbackup.prom"
    other = {("virtbackup_run_exit_code", '{command="clean"}'): 0.0}
    for samples in (metrics.samples_of_overview(overview_of(text)), other.items()):
        await update_metrics(file, samples)
    data = file.read_bytes()
    assert obeyed(data.decode()) <= obeyed(text)
    found = metrics.loads(data.decode())
    usual = dict(metrics.samples_of_overview(overview_of(HARMLESS)))
    assert len(found) == len(usual) + 1
    assert len(data.decode().split("\n")) == len(metrics.dumps({**usual, **other}).split("\n"))


@texts
def test_the_line_of_a_monitoring_stays_one(text):
    checked = health_of(overview_of(text))
    assert checked.message.isprintable()
    assert checked.message.count("|") == 1
