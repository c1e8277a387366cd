"""What the words behind ``backup`` mean: whole groups, or single domains of them. Pure."""

from collections.abc import Container, Iterable, Iterator, Sequence

from msgspec import Struct

from virtbackup_async.config.patterns import PatternKind
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.errors import ConfigError, NotFoundError


class ChosenGroup(Struct, frozen=True):
    """A group whose settings are used, and the ``domains`` that are wanted; None for all."""

    group: Group
    domains: tuple[str, ...] | None = None

    def wants(self, domain: str) -> bool:
        """Tell whether a domain was chosen, alone or with its group."""
        return self.domains is None or domain in self.domains


class Choice(Struct, frozen=True):
    """What was chosen, each group once; ``warnings`` are lines for the admin."""

    groups: tuple[ChosenGroup, ...]
    warnings: tuple[str, ...] = ()


def choose_groups(config: Config, words: Iterable[str], domain_names: Sequence[str]) -> Choice:
    """Return the groups and the domains that words mean.

    A word is a group's name, a domain's, or ``GROUP/DOMAIN``. A group goes before a domain of the
    same name, as it has ever since; if that domain is not in the group, a warning says so.

    Args:
        config: the configuration.
        words: what was typed.
        domain_names: all domains of the hypervisor.

    Raises:
        NotFoundError: a word is neither a group nor a domain of one.
        ConfigError: a domain is in groups that back it up into several targets, or is named next to
            its own group.
    """
    chosen: dict[str, ChosenGroup] = {}
    warnings: list[str] = []
    # Groups first: a domain next to its own group may mean that domain alone, as in `restore`.
    for word in sorted(dict.fromkeys(words), key=lambda word: word not in config.groups):
        if word in config.groups:
            chosen[word] = ChosenGroup(config.groups[word])
            warnings += _other_meaning(config, word, domain_names)
            continue
        for group, domain in _groups_of(config, word, domain_names):
            before = chosen.get(group.name, ChosenGroup(group, ()))
            if before.domains is not None:
                chosen[group.name] = ChosenGroup(group, (*before.domains, domain))
            elif word == domain:
                raise _group_or_domain(group.name, domain)
    return Choice(tuple(chosen.values()), tuple(warnings))


def _groups_of(
    config: Config, word: str, domain_names: Sequence[str]
) -> Sequence[tuple[Group, str]]:
    found = list(_meanings(config, word, domain_names))
    found = [one for one in found if one[0].target is not None] or found
    if not found:
        raise _refusal(config, word, domain_names)
    if len({(domain, group.target, str(group.packager)) for group, domain in found}) > 1:
        spelled = ", ".join(repr(f"{group.name}/{domain}") for group, domain in found)
        raise ConfigError(f"{word!r} is in several groups", hint=f"Write one of {spelled}.")
    return found


def _group_or_domain(group: str, domain: str) -> ConfigError:
    return ConfigError(
        f"{domain} is a domain of {group}, which is named as well",
        hint=f"Write {group}/{domain} for that domain alone, or {group} for all of the group.",
    )


def _meanings(
    config: Config, word: str, domain_names: Container[str]
) -> Iterator[tuple[Group, str]]:
    """Yield each group that a word can be a domain of, and the domain's name."""
    for group in config.groups.values():
        for domain in dict.fromkeys((word, word.removeprefix(f"{group.name}/"))):
            if group.includes(domain) and (domain in domain_names or names_domain(group, domain)):
                yield group, domain


def names_domain(group: Group, domain: str) -> bool:
    """Tell whether a group has a domain in its hosts by its name, and not by a pattern."""
    patterns = (entry.pattern for entry in group.hosts)
    return any(
        pattern.kind is PatternKind.NAME and not pattern.excludes and pattern.value == domain
        for pattern in patterns
    )


def _other_meaning(config: Config, word: str, domain_names: Sequence[str]) -> Iterator[str]:
    if word in domain_names and not config.groups[word].includes(word):
        others = [group.name for group, domain in _meanings(config, word, domain_names)]
        if others:
            yield (
                f"{word} is taken for the group of that name; the domain {word} is "
                f"{' and '.join(f'{name}/{word}' for name in others)}"
            )


def _refusal(config: Config, word: str, domain_names: Sequence[str]) -> NotFoundError:
    if word in domain_names:
        return NotFoundError(
            f"domain {word} is in no group of {config.where}",
            hint="Add it to the hosts of a group: the group says where to, and how.",
        )
    domain, at, _ = word.rpartition("@")
    if at and any(_meanings(config, domain, domain_names)):
        return NotFoundError(
            f"{word} names a backup, not a domain", hint=f"Name the domain: {domain}."
        )
    known = {name for name in domain_names if any(_meanings(config, name, domain_names))}
    meant = did_you_mean(word, [*config.groups, *sorted(known)])
    return NotFoundError(
        f"neither a group nor a domain of a group is called {word!r} in {config.where}{meant}"
    )
