"""The lab's fixtures, for the suites that run against a real libvirt."""

from lab.fixtures import daemon, daemon_of_the_run, make_domain

__all__ = ["daemon", "daemon_of_the_run", "make_domain"]
