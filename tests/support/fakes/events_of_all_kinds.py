"""An event of each kind, with one text in the place of every text: what views must cope with."""

import types
import typing
from enum import Enum

import msgspec

from virtbackup_async.events import Event, Summary

DATE = "2026-03-01T02:15:00+00:00"
FIXED = {"state": "good", "command": "backup", "day": "2026-03-01", "start": DATE}


def filled(kind, name="", text="", fixed=FIXED):  # noqa: PLR0911 -- one for each kind of type
    """Return a value of a type with a hostile text in the place of every text.

    Args:
        kind: the type; of a union, its first one that is not None counts.
        name: of the field that it is the type of.
        text: the text.
        fixed: the values of the fields with these names; other numbers are 1.
    """
    if kind is str:
        return DATE if "date" in name or "time" in name else fixed.get(name, text)
    if kind in {int, float, bool}:
        return kind(fixed.get(name, 1))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{key: filled(hints[key], key, text, fixed) for key in kind.__struct_fields__})
    args = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return filled(args[0], name, text, fixed)
    if origin is tuple:
        return tuple(filled(arg, name, text, fixed) for arg in args if arg is not ...)
    if origin in {dict, None} or not args:
        return {filled(args[0], text=text): filled(args[1], name, text, fixed)} if args else None
    return (filled(args[0], name, text, fixed),)


def events_named(text):
    """Return an event of each kind with a text in the place of every text; a summary ends them."""
    kinds = [kind for kind in typing.get_args(Event) if kind is not Summary]
    return [filled(kind, text=text) for kind in (*kinds, Summary)]
