"""What a server says in words: shown to people, so made harmless first."""

from virtbackup_async.nbd.protocol.constants import MAX_STRING_BYTES


def one_line(said: bytes) -> str:
    """Return a server's message as one printable line without a final period."""
    text = said[:MAX_STRING_BYTES].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
