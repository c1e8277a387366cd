"""The table of docs/reference/errors.md: made from samples, read back, and written."""

import inspect
import re
import sys
import tempfile
from pathlib import Path

import anyio

from error_samples import SAMPLERS, Place, Sample
from virtbackup_async import errors

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/errors.md"
TABLE = re.compile(r"(<!-- made by scripts/update-error-table -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = (
    "| Class | Code | `error_code` | What you see | Advice |\n"
    "|-------|-----:|--------------|--------------|--------|\n"
)
NEVER_RAISED: dict[type[errors.VirtBackupError], str] = {
    errors.NbdError: "It is always one of the kinds below."
}
"""Classes that only group others, and what stands in the place of a sample."""


def kinds() -> list[type[errors.VirtBackupError]]:
    """Return every class of errors, by exit code."""
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    known = [value for value in found if issubclass(value, errors.VirtBackupError)]
    return sorted(known, key=lambda kind: kind.exit_code)


def sample(kind: type[errors.VirtBackupError], root: Path) -> Sample:
    """Provoke an error of a kind, in an empty directory; return how it ends."""
    return anyio.run(SAMPLERS[kind], Place(root))


def row(kind: type[errors.VirtBackupError], made: Sample | None) -> str:
    """Return the line of the table."""
    name, code = kind.__name__, errors.code_of(kind)
    if made is None:
        return f"| `{name}` | {kind.exit_code} | `{code}` | {NEVER_RAISED[kind]} | |"
    seen = made.seen.removesuffix(".").removesuffix(made.advice.removesuffix(".")).rstrip()
    advice = _code(made.advice) if made.advice else ""
    return f"| `{name}` | {made.exit_code} | `{made.error_code}` | {_code(seen)} | {advice} |"


def _code(text: str) -> str:
    """Return a text as it is, in Markdown's code."""
    escaped = text.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in text else f"`{escaped}`"


def documented() -> dict[str, str]:
    """Return the lines of the page, by class."""
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| `\w+Error` \|", line)]
    return {line.split("`")[1]: line for line in rows}


def main() -> None:
    rows = []
    for kind in kinds():
        with tempfile.TemporaryDirectory(prefix="error-") as root:
            made = None if kind in NEVER_RAISED else sample(kind, Path(root))
        rows.append(row(kind, made))
        sys.stdout.write(f"{rows[-1]}\n")
    table = HEAD + "\n".join(rows) + "\n"
    PAGE.write_text(TABLE.sub(lambda found: found[1] + table + found[2], PAGE.read_text()))
