"""``virtbackup help``: the help of a command, as ``--help`` behind it shows it."""

import click

from virtbackup_async.cli.lazy_commands import subcommand


@subcommand("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of virtbackup itself."""
    asked = ctx.find_root()
    for word in words:
        if not isinstance(asked.command, click.Group):
            raise click.UsageError(f"{asked.command_path} has no command {word!r}", asked)
        name, found, _ = asked.command.resolve_command(asked, [word])
        if found is None:
            raise click.UsageError(f"no such command {word!r}", asked)
        asked = click.Context(found, asked, info_name=name)
    click.echo(asked.get_help())
