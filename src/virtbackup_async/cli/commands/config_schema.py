"""``virtbackup config schema``: the JSON Schema of the configuration file."""

import json

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.config.json_schema import config_schema


@subcommand("schema")
def command() -> None:
    """Print the JSON Schema of the configuration file, for editors that know YAML.

    virtbackup config schema > /etc/virt-backup/schema.json
    """
    click.echo(json.dumps(config_schema(), indent=2))
