"""The ``repair`` command on a small repository."""

from functools import partial

import yaml
from anyio.from_thread import start_blocking_portal

from fakes.site import NOW
from fakes.small_repository import SmallRepository
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.events import Event, RepositoryRepaired


def repair(place: SmallRepository, *, quick: bool = False) -> list[RepositoryRepaired]:
    """Repair the repository, and return what came of it."""
    path = place.target.parent / "config.yml"
    group = {"hosts": ["r:.*"], "target": str(place.target)}
    path.write_text(yaml.safe_dump({"groups": {"all": group}}))
    events: list[Event] = []
    run = partial(
        run_repair,
        Runtime(load_config(path), events.append, now=lambda: NOW),
        RepairRequest(quick=quick),
    )
    with start_blocking_portal() as portal:
        portal.call(run)
    return [event for event in events if isinstance(event, RepositoryRepaired)]
