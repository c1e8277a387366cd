"""packagers/registry.py: who has no repository does not load what only that needs."""

import subprocess
import sys


def test_a_backup_or_restore_without_a_repository_does_without_numpy():
    program = (
        "import sys, virtbackup_async.engine.backup.session\n"
        "import virtbackup_async.engine.restore.to_directory\n"
        "assert 'virtbackup_async.packagers.registry' in sys.modules\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
