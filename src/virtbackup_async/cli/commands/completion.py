"""``virtbackup completion``: the script that lets a shell complete this command."""

import click
from click.shell_completion import get_completion_class

from virtbackup_async.cli.lazy_commands import subcommand

VARIABLE = "_VIRTBACKUP_COMPLETE"


@subcommand("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, groups, domains, dates and disks.

    For bash: virtbackup completion bash > /etc/bash_completion.d/virtbackup
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "virtbackup", VARIABLE).source())
