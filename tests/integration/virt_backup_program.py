"""The real virt-backup 0.5.6, run as an admin runs it."""

import os
import subprocess

import pytest

from lab import virt_backup as program_of_pypi


@pytest.fixture(scope="session")
def virt_backup():
    """The command of the real program."""
    return program_of_pypi.install()


def run_virt_backup(program, config, *words):
    environment = {**os.environ, **program_of_pypi.ENVIRONMENT}
    command = [program, "-c", config, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
