"""A site as an admin might have it: two dozen guests, two targets, most of it well and some not."""

from datetime import date

from fakes.overview_facts import (
    DAY,
    GIB,
    HOUR,
    MIB,
    NIGHT,
    backup,
    domain_run,
    facts,
    guest,
    name_of,
    run,
    target,
)
from virtbackup_async.model.facts import Calendar, KeptBackup, RepositoryFacts
from virtbackup_async.model.run_record import Outcome

KINDS = ("web", "app", "cache", "build", "git", "ldap", "proxy", "ci", "dns", "wiki")
NIGHTS = 60
OFFSITE = "/mnt/offsite"


def nightly(domain, index, *, verified_until=2, missing=(), **newest):
    """A backup of each night; ``verify`` has read those of before the last few nights."""
    size = (10 + index * 7 % 60) * GIB
    found = []
    for night in range(NIGHTS, -1, -1):
        if night in missing:
            continue
        unread = night < verified_until or night % 9 == index % 9
        stored = (40 + (index * 53 + night * 29) % 160) * MIB
        found.append(
            backup(
                night,
                domain,
                verified=None if unread else True,
                size_bytes=size,
                data_bytes=size * 55 // 100,
                stored_bytes=stored,
                read_bytes=stored * 2,
                date=NIGHT - night * DAY + index * 37,
                audited_bytes=9 * MIB if night % 3 else 0,
                disks=("vda", "vdb") if domain == "app-1" and night < 2 else ("vda",),
                **(newest if night == 0 else {}),
            )
        )
    return found


def site_facts():
    """The facts of one morning."""
    guests = []
    for index in range(18):
        domain = f"{KINDS[index % len(KINDS)]}-{index // len(KINDS) + 1}"
        guests.append(guest(domain, nightly(domain, index)))
    guests += [
        guest("db-1", nightly("db-1", 20, missing=(0, 1, 2))),
        guest(
            "mail",
            [
                one if one.date < NIGHT - 5 * DAY else _more(one, 800 * MIB)
                for one in nightly("mail", 5, not_quiesced="the guest agent does not answer")
            ],
        ),
        guest("ns2", [backup(0, "ns2", verified=False)], broken=[_broken(3)]),
        guest("erp", nightly("erp", 33, lacks=(("vdc", "its image is missing"),))),
        guest("archive", nightly("archive", 12), group="offsite", target=OFFSITE),
        guest("old-erp", [backup(200, "old-erp"), backup(170, "old-erp")], is_known=False),
    ]
    return facts(
        *guests,
        targets=[
            target(history=_history(), used_bytes=713 * GIB, free_bytes=287 * GIB),
            target(
                OFFSITE,
                groups=("offsite",),
                used_bytes=120 * GIB,
                free_bytes=880 * GIB,
                repository=RepositoryFacts(900 * GIB, 110 * GIB, 70 * GIB),
            ),
        ],
        groups=(("production", True), ("offsite", True), ("manual", False)),
        unclaimed=("lab-7", "win11-test"),
        calendars=(_calendar(),),
    )


def _more(one, stored):
    return type(one)(
        **{name: getattr(one, name) for name in one.__struct_fields__} | {"stored_bytes": stored}
    )


def _broken(nights):
    return (f"2026112{7 - nights}-020000_9_ns2", NIGHT - nights * DAY, "data missing: ns2_vda.map")


def _history():
    runs = []
    for night in range(80, -1, -1):
        domains = []
        if night < 40:
            domains = [_bar(index, night) for index in range(18)]
            domains.append(_bar(18, night, "mail", made_as=5, read_bytes=3 * GIB))
            outcome = Outcome.FAILED if night < 3 else Outcome.DONE
            domains.append(_bar(19, night, "db-1", outcome, made_as=20))
        used = int((713 - night * 2.9 + (night * 7 % 11)) * GIB)
        runs.append(
            run(
                night,
                domains,
                end=NIGHT - night * DAY + 900.0,
                version="1.3.0" if night < 3 else "1.2.0",
                used_bytes=used,
                free_bytes=1000 * GIB - used,
            )
        )
    verified = [
        domain_run(
            "web-1", outcome=Outcome.VERIFIED, start=NIGHT - 2 * HOUR + 0.0, end=NIGHT - 3600.0
        )
    ]
    runs.append(run(0, verified, "verify", start=NIGHT - 2 * HOUR + 0.0, end=NIGHT - 3600.0))
    return runs


def _bar(index, night, domain=None, outcome=Outcome.DONE, made_as=None, **different):
    made = NIGHT - night * DAY + (index if made_as is None else made_as) * 37
    name = domain or f"{KINDS[index % len(KINDS)]}-{index // len(KINDS) + 1}"
    length = 25 + (index * 67 + night * 13) % 240
    start = NIGHT - night * DAY + 5.0 + (index // 3) * 105 + index % 3 * 9
    phases = (
        ("preparing", 0.0),
        ("freezing", 3.0),
        ("copying", 4.0),
        ("committing", length * 0.85),
        ("finishing", length - 4.0),
    )
    if outcome == Outcome.FAILED:
        return domain_run(
            name, outcome=outcome, start=start, end=start + 20, phases=phases[:1], frozen_ms=None,
            error="vda: the snapshot was refused: no space left on the images' file system",
        )  # fmt: skip
    return domain_run(
        name,
        start=start,
        end=start + length,
        phases=phases,
        method="snapshot",
        frozen_ms=2400 if (name, night) == ("cache-1", 0) else 300,
        backup=name_of(made, name),
        **different,
    )


def _calendar():
    today = date(2026, 11, 30).toordinal()
    kept = []
    for night in range(14, -1, -1):
        when = NIGHT - night * DAY
        is_monday = night % 7 == 0
        reasons = ("first of ISO week 2026-W48",) if is_monday else ("first of day 2026-11-29",)
        goes = None if is_monday else today + 14 - night + 1
        kept.append(KeptBackup(f"b{night}", when, reasons, goes))
    return Calendar("production", "web-1", tuple(kept))
