"""The lab's fixtures, and virt-backup."""

from lab.fixtures import daemon, daemon_of_the_run, make_domain
from virt_backup_program import virt_backup

__all__ = ["daemon", "daemon_of_the_run", "make_domain", "virt_backup"]


def pytest_addoption(parser):
    parser.addoption(
        "--all-agents",
        action="store_true",
        help="back up guests whose agents make libvirt wait, half a minute and longer, as well",
    )
