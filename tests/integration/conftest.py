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
    parser.addoption(
        "--roll-backs",
        type=int,
        default=2,
        help="how many random walks of images through time, of some twenty seconds each",
    )


def pytest_generate_tests(metafunc):
    if "roll_back_seed" in metafunc.fixturenames:
        walks = metafunc.config.getoption("--roll-backs", default=2)
        metafunc.parametrize("roll_back_seed", range(1, walks + 1))
