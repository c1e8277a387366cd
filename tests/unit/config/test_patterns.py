"""Patterns of hosts, one by one; what groups make of them is in test_plan.py."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.config.patterns import (
    PatternError,
    PatternKind,
    any_includes,
    parse_pattern,
    resolve,
)

NAMES = st.text(min_size=1, max_size=20)


@given(NAMES.filter(lambda name: not name.startswith(("!", "r:", "g:"))), NAMES)
def test_name_matches_itself_alone(name, other):
    pattern = parse_pattern(name)
    assert pattern.kind is PatternKind.NAME
    assert not pattern.excludes
    assert pattern.matches(name)
    assert pattern.matches(other) == (name == other)


@given(
    st.sampled_from(["^a", "b$", ".*", "", "a|b", "[ab]c", "(?i)A"]), st.text("abcA", max_size=4)
)
def test_regex_matches_as_re_match_does(regex, domain):
    for text in (f"r:{regex}", f"!r:{regex}"):
        assert parse_pattern(text).matches(domain) == (re.match(regex, domain) is not None)


@given(
    st.lists(st.sampled_from(["a", "b", "r:^a", "!a", "!r:^b", "r:"]), max_size=6), st.text("ab")
)
def test_exclusion_wins_wherever_it_stands(texts, domain):
    patterns = [parse_pattern(text) for text in texts]
    expected = any_includes(patterns, domain)
    assert any_includes(reversed(patterns), domain) == expected
    if any(pattern.excludes and pattern.matches(domain) for pattern in patterns):
        assert not expected


@pytest.mark.parametrize("text", ["", "!", "g:", "!g:", "r:(", "!r:[", "r:*", "r:(?P<a>x)(?P<a>y)"])
def test_pattern_that_means_nothing_is_refused(text):
    with pytest.raises(PatternError, match="found"):
        parse_pattern(text)


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(text):
    try:
        pattern = parse_pattern(text)
    except PatternError:
        return
    assert pattern.text == text
    assert isinstance(pattern.matches("web"), bool)


def groups(**texts):
    return {name: tuple(map(parse_pattern, entries)) for name, entries in texts.items()}


def test_group_pattern_means_what_the_group_means():
    others = groups(b=["r:^w", "!web2", "g:c"], c=["db"])
    pattern = resolve(parse_pattern("g:b"), others)
    matching = [name for name in ("web1", "web2", "db", "x") if pattern.matches(name)]
    assert matching == ["web1", "db"]


def test_excluding_group_pattern_takes_out_what_the_group_means():
    patterns = (parse_pattern("r:"), resolve(parse_pattern("!g:b"), groups(b=["r:^w"])))
    assert [name for name in ("web", "db") if any_includes(patterns, name)] == ["db"]


@pytest.mark.parametrize(
    "others",
    [
        groups(b=["g:b"]),
        groups(b=["x", "!g:c"], c=["g:b"]),
        groups(b=["g:c"], c=["g:d"], d=["g:c"]),
    ],
)
def test_circle_of_groups_is_refused(others):
    with pytest.raises(PatternError, match="in a circle"):
        resolve(parse_pattern("g:b"), others)


@pytest.mark.parametrize("text", ["g:x", "!g:x"])
def test_group_that_does_not_exist_means_no_domain(text):
    pattern = resolve(parse_pattern(text), groups(b=[]))
    assert pattern.is_lost
    assert not pattern.matches("x")
