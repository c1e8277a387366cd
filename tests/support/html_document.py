"""An HTML document taken apart, for tests of what it says and whether it is whole."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
# Their texts stand beside each other.
CELLS = {"dd", "dt", "td", "th", "title", "code"}

Attributes = list[tuple[str, str | None]]


class Document(HTMLParser):
    """The elements and the text of a document; one that is not closed in turn is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        for found, name in ((self.ids, "id"), (self.links, "href"), (self.titles, "title")):
            found.extend([values[name]] if name in values else [])
        if tag not in VOID:
            self.open.append(tag)
        if tag in CELLS:
            self.text += " "

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
