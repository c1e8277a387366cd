"""``virtbackup config protect``: what a target needs against a host that was broken into."""

from pathlib import Path

import click

from virtbackup_async.cli.failure import say
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.config.target_value import target_location
from virtbackup_async.config.values import SecretValueError, WrongValueError
from virtbackup_async.engine.setup.target_roles import role_lines
from virtbackup_async.errors import ConfigError


@subcommand("protect")
@click.argument("target")
@click.option("--quota", metavar="SIZE", help="Of a writer over ssh: what all files may take (2T).")
@click.option(
    "--writer-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The public key of the host that is backed up.",
)
@click.option(
    "--keeper-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The public key of the machine that cleans.",
)
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    *,
    quota: str | None,
    writer_key: Path | None,
    keeper_key: Path | None,
) -> None:
    """Print what TARGET needs so that a host can add backups, and remove none.

    For ssh://HOST/DIRECTORY, the lines of authorized_keys; for s3://BUCKET/PREFIX, the policies of
    both roles. Nothing is changed.

    virtbackup config protect ssh://backup@nas/srv/backups --writer-key /root/.ssh/id_ed25519.pub
    """
    try:
        keys = [_key(writer_key, "writer"), _key(keeper_key, "keeper")]
        for line in role_lines(target_location(target), quota, keys):
            click.echo(line)
    except ConfigError as error:
        say(str(error))
        ctx.exit(error.exit_code)
    except SecretValueError as error:
        raise click.BadParameter(f"{error}.") from error
    except WrongValueError as error:
        raise click.BadParameter(f"found {target!r:.100}, expected {error}.") from error


def _key(path: Path | None, role: str) -> str:
    """Return a public key, or what stands for it.

    Raises:
        ConfigError: the file has none.
    """
    if path is None:
        return f"ssh-ed25519 AAAA... (the public key of the {role})"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if "PRIVATE KEY" in text or "\n" in text or " " not in text:
        raise ConfigError(
            f"{path} is no public key", hint="It is the file that ends with .pub: one line."
        )
    return text
