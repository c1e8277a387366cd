"""The lab's fixtures, and virt-backup."""

from lab.fixtures import daemon, daemon_of_the_run, make_domain
from virt_backup_program import virt_backup

__all__ = ["daemon", "daemon_of_the_run", "make_domain", "virt_backup"]
