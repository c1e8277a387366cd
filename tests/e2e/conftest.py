"""The lab's fixtures."""

from lab.fixtures import daemon, daemon_of_the_run, make_domain

__all__ = ["daemon", "daemon_of_the_run", "make_domain"]
