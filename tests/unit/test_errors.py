"""Every error has an exit code, and every help says what the code means."""

import inspect

from virtbackup_async import errors
from virtbackup_async.cli.options import EXIT_STATUSES


def kinds():
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [kind for kind in found if issubclass(kind, errors.VirtBackupError)]


def test_every_help_names_the_exit_code_of_every_error():
    assert len(kinds()) > 20
    for kind in kinds():
        assert f"{kind.exit_code} {kind.exit_meaning}," in EXIT_STATUSES, kind


def test_different_exit_codes_mean_different_things():
    assert len({(kind.exit_code, kind.exit_meaning) for kind in kinds()}) == len(
        {kind.exit_code for kind in kinds()}
    )
