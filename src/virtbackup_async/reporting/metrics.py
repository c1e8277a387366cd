r"""Metrics of runs in a file for Prometheus's node exporter (its textfile collector).

::

    # HELP virtbackup_backup_success Whether the last backup of the domain succeeded.
    # TYPE virtbackup_backup_success gauge
    virtbackup_backup_success{group="main",domain="web"} 1

``after_run`` calls it at the end of a run. Samples of other groups and domains from earlier runs
stay: the file is read, the samples of this run are put in, and it is replaced in one step.
Source: prometheus.io, "Exposition formats".
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    Event,
    StoreRequests,
    Summary,
    VerifyDone,
    VerifyFailed,
)
from virtbackup_async.reporting.overview.parts import Overview, Standing

OVERVIEW_HELP: Mapping[str, str] = {
    "virtbackup_guest_newest_good_timestamp_seconds": "When the guest's newest good backup is of.",
    "virtbackup_guest_max_age_seconds": "How old the guest's newest good backup may become.",
    "virtbackup_guest_contradictions": "What is older, or other, than this host has seen it.",
    "virtbackup_guest_restorable": "Whether the guest has a good backup that is young enough.",
    "virtbackup_target_readable": "Whether the target could be read.",
    "virtbackup_target_used_bytes": "What is used of the target's file system.",
    "virtbackup_target_free_bytes": "What can still be written to the target.",
    "virtbackup_target_full_timestamp_seconds": "When the target is full, if it goes on growing.",
}
HELP: Mapping[str, str] = {
    "virtbackup_backup_success": "Whether the last backup of the domain succeeded.",
    "virtbackup_backup_last_success_timestamp_seconds": "When the domain's last backup was done.",
    "virtbackup_backup_duration_seconds": "How long the domain's last backup took.",
    "virtbackup_backup_data_bytes": "What the domain's last backup holds, holes left out.",
    "virtbackup_backup_read_bytes": "What the domain's last backup read, changes or all of it.",
    "virtbackup_backup_audit_failures": "Disks whose dirty bitmaps its last backup found wrong.",
    "virtbackup_backup_sequence": "The number of the domain's last definition in its target.",
    "virtbackup_backup_stored_bytes": "What the domain's last backup takes in its target.",
    "virtbackup_verify_success": "Whether the domain's last verified backup was whole.",
    "virtbackup_verify_last_success_timestamp_seconds": "When a backup of it was last verified.",
    "virtbackup_run_timestamp_seconds": "When the last run of the command ended.",
    "virtbackup_run_exit_code": "The exit code of the last run of the command.",
    "virtbackup_run_store_requests": "Requests of its last run to an object store.",
    "virtbackup_run_store_sent_bytes": "What its last run sent to an object store.",
    "virtbackup_run_store_received_bytes": "What its last run received from an object store.",
    **OVERVIEW_HELP,
}

Sample = tuple[str, str]
"""A metric's name, and its labels as they are written."""
Samples = dict[Sample, float]

_VERBS = ("put", "get", "list", "head", "delete")
_LINE = re.compile(r"(\w+)(\{.*\}) (\S+)")
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}


def counts(event: Event) -> bool:
    """Return whether an event has metrics."""
    kinds = BackupDone | BackupFailed | VerifyDone | VerifyFailed | StoreRequests
    return isinstance(event, kinds)


def samples_of(
    command: str, events: Iterable[Event], summary: Summary, now_s: float
) -> Iterator[tuple[Sample, float]]:
    """Yield the samples of one run; a later one of a domain replaces an earlier one."""
    for event in events:
        if isinstance(event, StoreRequests):
            yield from _of_requests(command, event)
        for name, value in _of_event(event, now_s):
            domain, group = getattr(event, "domain", ""), getattr(event, "group", "")
            yield (f"virtbackup_{name}", _labels(group=group, domain=domain)), value
    labels = _labels(command=command)
    yield ("virtbackup_run_timestamp_seconds", labels), now_s
    yield ("virtbackup_run_exit_code", labels), summary.exit_code


def samples_of_overview(overview: Overview) -> Iterator[tuple[Sample, float]]:
    """Yield the samples of all guests and targets; they replace all of ``OVERVIEW_HELP``.

    A guest that libvirt does not know any more has none: its backups are old by nature.
    """
    for guest in overview.guests:
        if guest.standing is Standing.RETIRED:
            continue
        # Only other hosts' guests are told by more: no series of one host changes its labels.
        whose = {} if guest.host is None else {"host": guest.host, "uuid": guest.uuid or ""}
        labels = _labels(group=guest.group, domain=guest.domain, **whose)
        is_restorable = guest.standing in (Standing.LOOK, Standing.GOOD)
        yield ("virtbackup_guest_restorable", labels), is_restorable
        yield ("virtbackup_guest_contradictions", labels), len(guest.contradictions)
        if guest.max_age_s is not None:
            yield ("virtbackup_guest_max_age_seconds", labels), guest.max_age_s
        if guest.newest is not None:
            yield ("virtbackup_guest_newest_good_timestamp_seconds", labels), guest.newest.date
    for target in overview.capacity:
        labels = _labels(target=target.path)
        yield ("virtbackup_target_readable", labels), target.error is None
        if target.points:
            _, used, free = target.points[-1]
            yield ("virtbackup_target_used_bytes", labels), used
            yield ("virtbackup_target_free_bytes", labels), free
        if target.forecast is not None and target.forecast.full is not None:
            yield ("virtbackup_target_full_timestamp_seconds", labels), target.forecast.full


def _of_requests(command: str, made: StoreRequests) -> Iterator[tuple[Sample, float]]:
    # Also those of which there were none: an earlier run may have made some.
    by_verb = dict.fromkeys(_VERBS, 0)
    for one in made.kinds:
        by_verb[one.verb] = by_verb.get(one.verb, 0) + one.requests
    for verb, requests in by_verb.items():
        labels = _labels(command=command, target=made.target, verb=verb)
        yield ("virtbackup_run_store_requests", labels), requests
    labels = _labels(command=command, target=made.target)
    yield ("virtbackup_run_store_sent_bytes", labels), made.sent_bytes
    yield ("virtbackup_run_store_received_bytes", labels), made.received_bytes


def _of_event(event: Event, now_s: float) -> Iterator[tuple[str, float]]:
    match event:
        case BackupDone():
            yield "backup_success", 1
            yield "backup_last_success_timestamp_seconds", now_s
            yield "backup_duration_seconds", event.duration_s
            yield "backup_data_bytes", event.data_bytes
            yield "backup_read_bytes", event.read_bytes
            yield "backup_audit_failures", event.audit_failures
            yield "backup_stored_bytes", event.stored_bytes
            if event.sequence is not None:
                yield "backup_sequence", event.sequence
        case BackupFailed():
            yield "backup_success", 0
        case VerifyDone(quick=False):
            yield "verify_success", 1
            yield "verify_last_success_timestamp_seconds", now_s
        case VerifyFailed():
            yield "verify_success", 0
        case _:
            pass


def dumps(samples: Samples) -> str:
    """Return the file's text, each metric with its help and type, its samples sorted."""
    lines: list[str] = []
    for name, help_text in HELP.items():
        found = sorted((key[1], value) for key, value in samples.items() if key[0] == name)
        if found:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {_number(value)}" for labels, value in found]
    return "".join(f"{line}\n" for line in lines)


def _number(value: float) -> str:
    return repr(int(value) if isinstance(value, bool) else value)


def loads(text: str) -> Samples:
    """Return the samples of a file that :func:`dumps` wrote; ignore other lines."""
    samples: Samples = {}
    # A label may hold any other character that ends a line elsewhere.
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found is None or found[1] not in HELP:
            continue
        try:
            samples[found[1], found[2]] = float(found[3])
        except ValueError:
            continue
    return samples


def _labels(**labels: str) -> str:
    escaped = {
        key: "".join(_ESCAPES.get(char, char) for char in _utf_8(value))
        for key, value in labels.items()
    }
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"


def _utf_8(text: str) -> str:
    """Return the text; the bytes of a path that are no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()
