"""A private libvirt daemon for the whole run, and domains that go away with their test."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.disks import DiskSpec
from lab.domains import LabDomain, define
from lab.libvirt_root import Daemon, open_daemon

MakeDomain = Callable[..., LabDomain]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def daemon_of_the_run() -> Iterator[Daemon]:
    """One daemon for all tests; take ``daemon`` instead, which is sure to run."""
    with open_daemon() as daemon:
        yield daemon


@pytest.fixture
def daemon(daemon_of_the_run: Daemon) -> Daemon:
    """A running libvirt daemon: ``daemon.uri`` is what the product connects to."""
    daemon_of_the_run.ensure_started()
    return daemon_of_the_run


@pytest.fixture
def make_domain(daemon: Daemon) -> Iterator[MakeDomain]:
    """Returns a function ``(*disks, boot=True, **options of domain_xml) -> LabDomain``.

    Without disks there is one, ``vda``. The name is new in the run unless ``name=`` is given. In an
    asynchronous test call it with ``anyio.to_thread.run_sync``: booting takes four seconds.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(daemon.ensure_started)

        def make(*disks: DiskSpec, boot: bool = True, **options: Any) -> LabDomain:
            name = options.pop("name", None) or f"guest-{next(_numbers)}"
            domain = define(daemon, name, disks or [DiskSpec("vda")], **options)
            cleanup.callback(_undefine, daemon, domain)
            if boot:
                domain.start()
                domain.wait_booted()
            return domain

        yield make


def _undefine(daemon: Daemon, domain: LabDomain) -> None:
    daemon.ensure_started()
    domain.undefine()
