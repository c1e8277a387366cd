"""The JSON Schema (draft 2020-12) of the configuration file, for editors; ``config schema``.

Made from the same tables that the reader uses: the keys of ``sections``, the
schema that each check carries, the rules of the packagers, the old keys that ``compat`` knows. What
a schema cannot say is left to ``config check``: whether a regex compiles, whether a group that
``g:`` names is there, what a group inherits.
"""

from collections.abc import Mapping
from typing import Any

from virtbackup_async.compat import config as compat
from virtbackup_async.config.sections import (
    ENCRYPTION_KEYS,
    GROUP_KEYS,
    HOOK_KEYS,
    HOST_KEYS,
    LOG_KEYS,
    NOTIFY_KEYS,
    REPORT_KEYS,
    TOP_KEYS,
)
from virtbackup_async.config.values import Check
from virtbackup_async.model.packager import (
    COMPRESSIONS,
    PACKAGER_TYPES,
    USUAL_TYPE,
    type_named,
)

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_TAR = {"type": "string", "pattern": "^([Nn][Oo][Nn][Ee]|[Tt][Aa][Rr])$"}


def config_schema() -> Schema:
    """Return the schema of the whole file."""
    below: dict[str, Schema] = {
        "hooks": _ref("hooks"),
        "notify": _section(NOTIFY_KEYS),
        "log": _section(LOG_KEYS),
        "report": _section(REPORT_KEYS),
        "default": _ref("group"),
        "groups": {"type": "object", "additionalProperties": _or_null(_ref("group"))},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of virtbackup",
        **_section(TOP_KEYS, below, _renamed(TOP_KEYS, compat.RENAMED_AT_THE_TOP)),
        "$defs": {"group": _group(), "hooks": _section(HOOK_KEYS)},
    }


def _group() -> Schema:
    host = {**_section(HOST_KEYS), "required": ["host"]}
    host["properties"]["host"] = dict(HOST_KEYS["host"].schema)
    below: dict[str, Schema] = {
        "packager_opts": {"type": "object"},
        "hosts": {"type": "array", "items": {"anyOf": [dict(HOST_KEYS["host"].schema), host]}},
        "hooks": _ref("hooks"),
        "encryption": {**_section(ENCRYPTION_KEYS), "required": ["key_file"]},
    }
    for key, check in ENCRYPTION_KEYS.items():
        below["encryption"]["properties"][key] = dict(check.schema)
    old = _renamed(GROUP_KEYS, compat.RENAMED_IN_GROUPS)
    old |= dict(zip(compat.OLD_COMPRESSION, _options(USUAL_TYPE).values(), strict=True))
    return {
        **_section(GROUP_KEYS, below, old),
        "allOf": [
            {
                "if": {"properties": {"packager": {"const": kind}}, "required": ["packager"]},
                "then": {"properties": {"packager_opts": _or_null(_closed(_options(kind)))}},
            }
            for kind in PACKAGER_TYPES
        ],
    }


def _options(packager_type: str) -> dict[str, Schema]:
    """Return the options of a packager, for all its compressions together."""
    kind = type_named(packager_type)
    ranges = [kind.levels(compression) for compression in COMPRESSIONS]
    lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
    options: dict[str, Schema] = {
        "compression": {"anyOf": [{"enum": [*COMPRESSIONS]}, _TAR]},
        "compression_lvl": _or_null({"type": "integer", "minimum": lowest, "maximum": highest}),
    }
    return {name: options[name] for name in kind.options}


def _section(
    keys: Mapping[str, Check],
    below: Mapping[str, Schema] | None = None,
    old: Mapping[str, Schema] | None = None,
) -> Schema:
    """Return the schema of a section: its keys, those of the sections below it, and old keys."""
    properties = {key: dict(check.schema) for key, check in keys.items()} | dict(below or {})
    replaced = {
        key: {**_or_null(schema), "deprecated": True} for key, schema in (old or {}).items()
    }
    return _closed({key: _or_null(schema) for key, schema in properties.items()} | replaced)


def _renamed(keys: Mapping[str, Check], names: Mapping[str, str]) -> dict[str, Schema]:
    return {old: dict(keys[new].schema) for old, new in names.items()}


def _closed(properties: Mapping[str, Schema]) -> Schema:
    """Return a schema without other keys: an unknown one is ignored, and mostly a typo."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    """Return a schema that allows null, which means unset, or has a special meaning."""
    return {"anyOf": [schema, _NULL]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
