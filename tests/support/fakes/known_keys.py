"""Keys that are always the same, and passphrases that cost little: for tests alone."""

from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import Cost

MASTERS = (Secret(bytes(range(32))), Secret(bytes(range(32, 64))))
REPOSITORY_ID = bytes(range(200, 216))
QUICK = Cost(iterations=1, lanes=1, memory_kib=8)


def keys(*, can_read: bool = True, generations: int = 1) -> Keys:
    """The known keys."""
    return Keys(MASTERS[:generations], can_read=can_read)


def other_keys() -> Keys:
    """Keys of somebody else."""
    return Keys([Secret(bytes(32))])
