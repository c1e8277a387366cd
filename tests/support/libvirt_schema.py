"""libvirt's schema of a domain (RELAX NG), walked: every place of it, and what may stand there.

A place is ``element/element@attribute`` below ``<domain>``; that of an element is for its text.
"""

from pathlib import Path

from lxml import etree

INSTALLED = Path("/usr/share/libvirt/schemas/domain.rng")
_RNG = "{http://relaxng.org/ns/structure/1.0}"
_PATH_TYPES = {"filePath", "dirPath", "absFilePath", "absDirPath", "deviceName", "vmwarePath"}
# Of text without a type, what is called so.
_PATH_NAMES = ("path", "file", "dir", "socket", "dev", "image", "shim", "bootloader", "xauth")
# They hold themselves, or what the schema says nothing of.
_ONCE = ("backingStore", "mirror", "dataStore", "*")


def places(schema=INSTALLED):
    """Each place, with the types that its content may have."""
    start, defined = _grammar(schema)
    walk = _Walk(defined)
    walk.go(start, ())
    prefix = "domain/"
    return {
        place.removeprefix(prefix): types
        for place, types in walk.found.items()
        if place.startswith(prefix)
    }


def may_be_path(place, types):
    """Whether a path of the host may stand in this place."""
    if types & _PATH_TYPES:
        return True
    if not types <= {"text", "string"} or ("@" not in place and not types):
        return False
    name = place.replace("@", "/").rpartition("/")[2]
    return name.lower().endswith(_PATH_NAMES)


def _grammar(schema):
    defined: dict = {}
    todo, seen, start = [schema], set(), []
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        root = etree.parse(path).getroot()
        todo += [path.parent / each.get("href") for each in root.iter(f"{_RNG}include")]
        for each in root.iter(f"{_RNG}define"):
            defined.setdefault(each.get("name"), []).extend(each)
        if path == schema:
            start = list(root.iter(f"{_RNG}start"))
    return start, defined


class _Walk:
    def __init__(self, defined):
        self.defined = defined
        self.found = {}
        self._seen = set()

    def go(self, patterns, above):
        for pattern in patterns:
            match _kind(pattern):
                case "element":
                    self._element(pattern, above)
                case "attribute":
                    place = "/".join(above) + "@" + _name(pattern)
                    self.found.setdefault(place, set()).update(self._types(pattern))
                case "ref":
                    key = (pattern.get("name"), above)
                    if key not in self._seen:
                        self._seen.add(key)
                        self.go(self.defined[key[0]], above)
                case None:
                    pass
                case _:
                    self.go(pattern, above)

    def _element(self, pattern, above):
        name = _name(pattern)
        if name in _ONCE and name in above:
            return
        path = (*above, name)
        self.found.setdefault("/".join(path), set()).update(self._types(pattern))
        self.go(pattern, path)

    def _types(self, patterns):
        types = set()
        for pattern in patterns:
            match _kind(pattern):
                case "ref" if pattern.get("name") in _PATH_TYPES:
                    types.add(pattern.get("name"))
                case "ref":
                    types |= self._types(self.defined[pattern.get("name")])
                case "data":
                    types.add(pattern.get("type"))
                case "text" | "value" as kind:
                    types.add(kind)
                case "element" | "attribute" | "name" | "anyName" | "nsName" | None:
                    pass
                case _:
                    types |= self._types(pattern)
        return types


def _kind(pattern):
    return pattern.tag.removeprefix(_RNG) if isinstance(pattern.tag, str) else None


def _name(pattern):
    """The name, without a prefix; of a choice of names the first."""
    named = pattern.get("name") or next((each.text for each in pattern.iter(f"{_RNG}name")), "*")
    return named.rpartition(":")[2]
