"""UUIDs of domains, in the one form in which they are compared. Pure."""

from uuid import UUID


def canonical_uuid(text: str | None) -> str | None:
    """Return a UUID in lower case with dashes; None if the text is not a UUID."""
    try:
        return str(UUID(text))
    except (TypeError, ValueError, AttributeError):
        return None
