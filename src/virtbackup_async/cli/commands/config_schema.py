"""``virtbackup config schema``: the JSON Schema of the configuration file."""

import json

import click

from virtbackup_async.cli.options import EXIT_STATUSES, Command
from virtbackup_async.config.json_schema import config_schema


@click.command("schema", cls=Command, epilog=EXIT_STATUSES)
def command() -> None:
    """Print the JSON Schema of the configuration file, for editors that know YAML.

    virtbackup config schema > /etc/virt-backup/schema.json
    """
    click.echo(json.dumps(config_schema(), indent=2))
