"""The colours, the same everywhere; what a colour says stands in the words as well."""

from typing import Final

BAD: Final = "bold red"
LOOK: Final = "yellow"
GOOD: Final = "green"
FACT: Final = "dim"
