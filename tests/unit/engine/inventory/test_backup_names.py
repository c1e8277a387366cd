"""The names of backups: what each means, whatever domains and groups are called."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.engine.inventory.backup_names import (
    Place,
    Reading,
    is_date,
    meanings,
    only_one,
    readings,
    refusal,
)
from virtbackup_async.engine.inventory.dates import pasteable
from virtbackup_async.errors import ConfigError, NotFoundError

NAME = "20261127-030000_3_web"


def place(*domains, group="production", target="/t", backups=None, wants=lambda _: True):
    return Place(group, Path(target), set(domains), backups or {}, wants)


def meant(text, *places):
    return [(m.place.group, m.domain, m.date) for m in meanings(text, places)]


def test_a_text_is_read_with_the_longest_domain_first():
    assert readings("a@b@c", ["g", "a@b"]) == [
        Reading("a@b@c"),
        Reading("a@b", "c"),
        Reading("a", "b@c"),
    ]
    assert readings("g/a@b", ["g", "x"]) == [
        Reading("g/a@b"),
        Reading("g/a", "b"),
        Reading("a@b", None, "g"),
        Reading("a", "b", "g"),
    ]


@pytest.mark.parametrize(
    ("text", "domain", "date"),
    [
        ("web", "web", None),
        ("web@latest", "web", None),
        ("web@2026-11-27", "web", "2026-11-27"),
        ("web@2026-11", "web", "2026-11"),
        ("web@yesterday", "web", "yesterday"),
        ("web@today", "web", "today"),
        ("web@18:29", "web", "18:29"),
        ("web@3d", "web", "3d"),
        ("web@12h", "web", "12h"),
        ("web@2026-11-27 03:00", "web", "2026-11-27 03:00"),
        ("web@2026-11-27 03:00:00+01:00", "web", "2026-11-27 03:00:00+01:00"),
        (NAME, "web", NAME),
        (f"web@{NAME}", "web", NAME),
        ("web@20260101-000000_3_gone", "web", "20260101-000000_3_gone"),
        ("production/web", "web", None),
        ("production/web@3d", "web", "3d"),
        (f"production/{NAME}", "web", NAME),
    ],
)
def test_a_name_means_a_backup_of_a_domain(text, domain, date):
    assert meant(text, place("web", "db", backups={NAME: "web"})) == [("production", domain, date)]


@pytest.mark.parametrize(
    "text", ["nope", "web@", "@latest", "web@soon", "web@3months", "staging/web"]
)
def test_what_means_nothing_has_no_meaning(text):
    assert meant(text, place("web")) == []


def test_a_name_of_a_backup_that_is_no_date_is_taken_too():
    assert meant("web@odd", place("web", backups={"odd": "web"})) == [("production", "web", "odd")]
    assert meant("db@odd", place("web", "db", backups={"odd": "web"})) == []


@pytest.mark.parametrize("domain", ["a@b", "@", "a b", "a/b", "today", "web@", " ", "production/x"])
def test_a_domain_may_be_called_what_it_likes(domain):
    found = place(domain)
    for text, date in (
        (domain, None),
        (f"{domain}@latest", None),
        (f"{domain}@2026-11-27", "2026-11-27"),
        (f"production/{domain}@3d", "3d"),
    ):
        assert meant(text, found) == [("production", domain, date)]


def test_a_domain_called_like_a_date_of_another_is_never_guessed():
    found = place("web", "web@today")
    both = meanings("web@today", [found])
    assert [(m.domain, m.date) for m in both] == [("web@today", None), ("web", "today")]
    with pytest.raises(ConfigError, match="'web@today' can mean 2 backups") as caught:
        only_one("web@today", both)
    assert caught.value.hint == (
        "Write one of 'production/web@today@latest', 'production/web --date today'."
    )
    (whole,) = meanings("web@today@latest", [found])
    assert whole.domain == "web@today"
    (dated,) = meanings("web", [found])
    assert dated.domain == "web"
    assert meanings("web@today", [found], is_dated=False) == [both[0]]


def test_a_domain_in_two_targets_needs_its_group():
    places = [place("web"), place("web", group="weekly", target="/u")]
    with pytest.raises(ConfigError, match="'web@3d' can mean 2 backups") as caught:
        only_one("web@3d", meanings("web@3d", places))
    assert caught.value.hint == "Write one of 'production/web@3d', 'weekly/web@3d'."
    assert meant("weekly/web@3d", *places) == [("weekly", "web", "3d")]


def test_groups_that_share_a_target_have_the_same_backups():
    places = [place("web"), place("web", group="weekly")]
    assert meant("web", *places) == [("production", "web", None)]
    assert meant("weekly/web", *places) == [("weekly", "web", None)]


def test_the_group_that_wants_a_domain_goes_before_one_with_old_backups_of_it():
    old = place("web", "lost", wants=lambda _: False)
    new = place("web", group="weekly", target="/u", wants=lambda domain: domain == "web")
    assert meant("web", old, new) == [("weekly", "web", None)]
    assert meant("production/web", old, new) == [("production", "web", None)]
    assert meant("lost", old, new) == [("production", "lost", None)]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("webb", NotFoundError, "no backup of webb in /t, did you mean 'web'?"),
        ("webb@2026-11-27", NotFoundError, "no backup of webb in /t, did you mean 'web'?"),
        ("web@3months", ConfigError, "date '3months' cannot be understood. Write a date as"),
        ("production/web@soon", ConfigError, "date 'soon' cannot be understood"),
        ("produktion/web", NotFoundError, "did you mean 'production/web'?"),
        ("production", NotFoundError, "production is a group, not a domain. Name a domain of it,"),
        ("", NotFoundError, "no backup of  in /t"),
    ],
)
def test_a_refusal_teaches(text, kind, message):
    error = refusal(text, [place("web", "db")], ["production"])
    assert type(error) is kind
    assert message in str(error)


def test_a_group_in_the_place_of_a_domain_is_told_with_a_domain_of_it_as_an_example():
    places = [place("web", "db", wants=lambda domain: domain == "web"), place("a", group="other")]
    assert "production/web." in str(refusal("production", places, ["production"]))
    assert "production/DOMAIN." in str(refusal("production", [], ["production"]))


def test_what_is_a_date():
    assert is_date("latest")
    assert is_date("3d")
    assert not is_date("soon")


DOMAINS = st.sets(
    st.text(alphabet="ab@/ \n0d:-", min_size=1, max_size=6)
    | st.sampled_from(["web", "web@today", "web@today@latest", "today", "g/web", "g", NAME]),
    min_size=1,
    max_size=5,
)


@given(DOMAINS, st.sampled_from(["latest", "today", "3d", "2026-11", "18:29"]))
def test_no_text_means_another_domain_in_silence(domains, date):
    """Whatever a domain is called, its name and a date mean it, alone or beside another reading."""
    one = place(*domains, group="g", backups={NAME: min(domains)})
    for domain in domains:
        for text in (f"{domain}@{date}", f"g/{domain}@{date}"):
            found = meanings(text, [one])
            assert (domain, None if date == "latest" else date) in [
                (m.domain, m.date) for m in found
            ]
            if len(found) > 1:
                with pytest.raises(ConfigError):
                    only_one(text, found)


@given(DOMAINS, st.integers(1_700_000_000, 1_800_000_000))
def test_what_a_refusal_suggests_means_one_backup(domains, moment):
    one = place(*domains, group="group/@x", backups={NAME: min(domains)})
    date = pasteable(datetime.fromtimestamp(moment, UTC))
    for domain in domains:
        for meaning in meanings(f"{domain}@{date}", [one]):
            text, has_date, apart = str(meaning).rpartition(" --date ")
            if has_date:
                assert apart == meaning.date
                assert meanings(text, [one], is_dated=False) == [
                    type(meaning)(meaning.place, meaning.domain)
                ]
            else:
                assert meanings(apart, [one]) == [meaning]
