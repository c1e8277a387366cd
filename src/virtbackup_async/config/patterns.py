"""Which domains a group means: the entries of ``hosts``.

::

    web            the domain of that name          !web           never that domain
    r:^prod-       names the regex matches          !r:^test       never those
    g:production   the domains of another group     !g:staging     never those

A regex is matched from the start of the name on, as Python's ``re.match`` and virt-backup do. An
exclusion wins over all inclusions, wherever it stands.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
_AS_IT_STANDS = r"\\\g<0>"


class PatternError(ValueError):
    """A pattern is invalid; the message says what was found and expected."""


class PatternKind(StrEnum):
    """How the text of a pattern is compared with a domain's name."""

    NAME = "name"
    REGEX = "regex"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of ``hosts``.

    Attributes:
        text: as written, exclamation mark and prefix included.
        value: the name, the regex or the group's name.
        excludes: matching domains are taken out.
        members: the patterns of the group that a ``g:`` pattern names, see :func:`resolve`.
        is_lost: there is no group of the name in a ``g:`` pattern, so it means no domain.
    """

    text: str
    kind: PatternKind
    value: str
    excludes: bool
    members: tuple["HostPattern", ...] = ()
    is_lost: bool = False

    def matches(self, domain: str) -> bool:
        """Return whether the pattern matches ``domain``, to include or exclude it."""
        match self.kind:
            case PatternKind.NAME:
                return self.value == domain
            case PatternKind.REGEX:
                return re.match(self.value, domain) is not None
            case PatternKind.GROUP:
                return any_includes(self.members, domain)


def any_includes(patterns: Iterable[HostPattern], domain: str) -> bool:
    """Return whether a group's patterns include ``domain``, and none excludes it."""
    matching = [pattern for pattern in patterns if pattern.matches(domain)]
    return bool(matching) and not any(pattern.excludes for pattern in matching)


def parse_pattern(text: str) -> HostPattern:
    """Return the pattern that ``text`` stands for; a ``g:`` pattern still has no members.

    Raises:
        PatternError: it is empty, or its regex cannot be compiled.
    """
    value = text.removeprefix("!")
    kind = PatternKind.NAME
    if value.startswith("r:"):
        kind, value = PatternKind.REGEX, value.removeprefix("r:")
        _check_regex(value)
    elif value.startswith("g:"):
        kind, value = PatternKind.GROUP, value.removeprefix("g:")
    if not value and kind is not PatternKind.REGEX:
        raise PatternError(f"found {text!r}, expected a name, 'r:' and a regex or 'g:' and a group")
    return HostPattern(text, kind, value, excludes=text.startswith("!"))


def pattern_of(domain: str, *, excludes: bool = False, may_be_gone: bool = False) -> str:
    """Return a pattern that matches this one domain, whatever its name looks like.

    Args:
        domain: its name.
        excludes: take it out.
        may_be_gone: match it only where it is; a name that no domain has makes a run fail.
    """
    is_plain = not domain.startswith(("!", "r:", "g:")) and not may_be_gone
    text = domain if is_plain else f"r:{_SPECIAL.sub(_AS_IT_STANDS, domain)}$"
    return f"!{text}" if excludes else text


def resolve(
    pattern: HostPattern,
    groups: Mapping[str, tuple[HostPattern, ...]],
    way: tuple[str, ...] = (),
) -> HostPattern:
    """Return ``pattern``; if it is a ``g:`` pattern, with the members of that group filled in.

    A group that is not there has none. virt-backup passes over it as well.

    Args:
        pattern: as parsed.
        groups: the parsed patterns of all groups by name.
        way: the groups that led here, to notice a circle.

    Raises:
        PatternError: groups refer to each other in a circle.
    """
    if pattern.kind is not PatternKind.GROUP:
        return pattern
    if pattern.value not in groups:
        return replace(pattern, is_lost=True)
    if pattern.value in way:
        circle = " -> ".join((*way, pattern.value))
        raise PatternError(f"groups refer to each other in a circle: {circle}")
    way = (*way, pattern.value)
    members = tuple(resolve(member, groups, way) for member in groups[pattern.value])
    return replace(pattern, members=members)


def _check_regex(regex: str) -> None:
    try:
        re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"found the regex {regex!r:.80}, which is invalid: {error}") from error
