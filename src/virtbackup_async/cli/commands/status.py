"""``virtbackup status``: how things are."""

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("status")
@target_option
@shared_options
def command(settings: Settings) -> None:
    """Show in 24 rows whether every guest can be restored, what runs, and what comes next.

    Each guest has a row of its last 35 days, the worst first: green for a backup, yellow for one
    that was not quiesced or lacks a disk, red for a failure or damage. Without colours it is a
    letter: v verified, m made, p not quiesced or not whole, e removed since, f failed, d damaged, n
    none.

    With --target, it shows what the target alone knows: not how old a backup may be, which guests
    have none, nor the timers.
    """
    run_with_config(settings, lambda vb: vb.status(), reports.status)
