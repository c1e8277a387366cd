"""Whatever the facts are, and however odd, there is a page, and it is whole.

A target's files may say anything that their readers let through: dates up to the year 9999, lengths
up to 2**63, any text.
"""

from datetime import UTC

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.overview_facts import NOW, facts
from html_document import Document
from virtbackup_async.catalog.raw_json import DATE_MAX
from virtbackup_async.model.facts import (
    BackupFacts,
    BrokenFacts,
    Calendar,
    GuestFacts,
    KeptBackup,
    Leftover,
    RepositoryFacts,
    RunningBackup,
    TargetFacts,
)
from virtbackup_async.model.run_record import DomainRun, RunRecord
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.overview.parts import Standing
from virtbackup_async.reporting.page import mail
from virtbackup_async.reporting.page.page import render_page

GROUPS = ("main", "<b>", "")
NAMES = ("web", "db\x1b[31m", "<i>&", "\udcff", "")
DATES = st.integers(NOW - 90 * 86_400, NOW + 90_000) | st.integers(0, DATE_MAX)
MOMENTS = st.floats(NOW - 3e5, NOW + 3e5) | st.floats(0, DATE_MAX)
BYTES = st.integers(0, 2**63 - 1)
TEXTS = st.text(max_size=12)
MAYBE = st.none() | TEXTS
PHASES = st.tuples(TEXTS | st.sampled_from(["freezing", "copying"]), st.floats(0, 1e9))

BACKUPS = st.builds(
    BackupFacts,
    name=TEXTS, date=DATES, verified=st.none() | st.booleans(), verified_date=st.none() | DATES,
    disks=st.lists(st.sampled_from(["vda", "\x1b", "<"]), max_size=2).map(tuple),
    not_quiesced=MAYBE, lacks=st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
    pinned=st.booleans(), expires=st.booleans(), size_bytes=BYTES, data_bytes=BYTES,
    stored_bytes=BYTES, read_bytes=BYTES, frozen_ms=st.none() | BYTES, full_reason=MAYBE,
    audited_bytes=BYTES, audit_failed=st.booleans(),
)  # fmt: skip
GUESTS = st.builds(
    GuestFacts,
    group=st.sampled_from(GROUPS), domain=st.sampled_from(NAMES),
    target=st.sampled_from(["/a", "/b"]),
    max_age_s=st.sampled_from([60.0, 93_600.0, 1e9]), is_known=st.none() | st.booleans(),
    backups=st.lists(BACKUPS, max_size=8).map(lambda b: tuple(sorted(b, key=lambda one: one.date))),
    broken=st.lists(
        st.builds(BrokenFacts, TEXTS, st.none() | DATES, TEXTS), max_size=2
    ).map(tuple),
)  # fmt: skip
DOMAIN_RUNS = st.builds(
    DomainRun,
    group=st.sampled_from(GROUPS), domain=st.sampled_from(NAMES),
    outcome=st.sampled_from(["done", "failed", "verified", "damaged", "new"]),
    start=MOMENTS, end=MOMENTS, backup=MAYBE,
    method=st.sampled_from(["snapshot", "pull", None]),
    phases=st.lists(PHASES, max_size=4).map(tuple),
    frozen_ms=st.none() | BYTES, read_bytes=BYTES, data_bytes=BYTES, stored_bytes=BYTES,
    error=MAYBE,
)  # fmt: skip
RUNS = st.builds(
    RunRecord,
    run_id=TEXTS, command=st.sampled_from(["backup", "verify", "clean", "x"]), host=TEXTS,
    version=TEXTS, start=MOMENTS, end=MOMENTS, exit_code=st.integers(0, 255), error=MAYBE,
    domains=st.lists(DOMAIN_RUNS, max_size=4).map(tuple), removed=BYTES,
    used_bytes=st.none() | BYTES, free_bytes=st.none() | BYTES,
)  # fmt: skip
TARGETS = st.builds(
    TargetFacts,
    path=st.sampled_from(["/a", "/b"]), groups=st.just(("main",)), error=MAYBE,
    used_bytes=st.none() | BYTES, free_bytes=st.none() | BYTES,
    repository=st.none() | st.builds(RepositoryFacts, BYTES, BYTES, BYTES),
    history=st.lists(RUNS, max_size=9).map(tuple),
    problems=st.lists(TEXTS, max_size=1).map(tuple),
    unclaimed=st.lists(TEXTS, max_size=1).map(tuple),
)  # fmt: skip
SITES = st.fixed_dictionaries(
    {
        "groups": st.lists(
            st.tuples(st.sampled_from(GROUPS), st.booleans()), max_size=2
        ).map(tuple),
        "targets": st.lists(TARGETS, max_size=2, unique_by=lambda target: target.path),
        "unclaimed": st.lists(TEXTS, max_size=2).map(tuple),
        "hypervisor_error": MAYBE,
        "running": st.lists(
            st.builds(
                RunningBackup, TEXTS, TEXTS, DATES, TEXTS, st.none() | st.integers(1, 1 << 22)
            ),
            max_size=1,
        ).map(tuple),
        "leftovers": st.lists(st.builds(Leftover, TEXTS, TEXTS), max_size=1).map(tuple),
        "calendars": st.lists(
            st.builds(
                Calendar, TEXTS, TEXTS,
                st.lists(
                    st.builds(
                        KeptBackup, TEXTS, DATES, st.lists(TEXTS, max_size=2).map(tuple),
                        st.none() | st.integers(1, 3_000_000),
                    ), max_size=3,
                ).map(tuple),
            ), max_size=1,
        ).map(tuple),
    }
)  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(st.lists(GUESTS, max_size=5, unique_by=lambda guest: (guest.group, guest.domain)), SITES)
def test_there_is_a_page_and_it_is_whole(guests, site):
    overview = build_overview(facts(*guests, **site), UTC)
    document = Document(render_page(overview, UTC, took_s=0.1, mailed=NOW))
    assert overview.verdict.sentence.split()[0] in document.text
    assert {link[1:] for link in document.links} <= set(document.ids)
    assert mail.text(overview, UTC).encode()
    assert mail.subject(overview).isprintable()
    is_all = overview.verdict.sentence.startswith(("All", "The only guest, "))
    assert is_all <= (overview.verdict.standing in (Standing.LOOK, Standing.GOOD))
    assert is_all <= all(target.error is None for target in overview.capacity)
