"""``virtbackup config example``: the annotated example of a configuration."""

import sys
from contextlib import suppress

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.files.shipped import EXAMPLE_CONFIG, shipped


@subcommand("example")
def command() -> None:
    """Print an example of a configuration with every key, each with a comment.

    It names domains that you do not have: change it before you use it. "virtbackup init" writes a
    configuration for this host.

    virtbackup config example > /etc/virt-backup/config.yml
    """
    # As bytes: the locale must not change a file in UTF-8. `| head` may stop reading.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(shipped(EXAMPLE_CONFIG).read_bytes())
        sys.stdout.buffer.flush()
