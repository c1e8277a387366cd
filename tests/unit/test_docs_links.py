"""Each link between the project's pages leads to a file, and to a heading inside it."""

import os
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?!\w+://)([^)#\s]*)(?:#([^)\s]*))?\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
MENTION = re.compile(r"\bdocs/[\w./-]+\.(?:md|json|svg|1)\b")
MODULE = re.compile(r"(?<![\w/])(?:[\w-]+/)+\w+\.py\b")
# Documents of libvirt and QEMU that the code cites have such paths, too, and other endings.
OF_THE_FORGE = (".github", ".ci")
OWN = ("*.md", "*.py", "*.yml", "*.toml", "*.service", "scripts/*", "scripts/lib/*")


def files(*patterns):
    """The project's files of these names; git is not asked, it knows nothing of a mere copy."""
    found = []
    for directory, below, names in os.walk(ROOT):
        below[:] = sorted(name for name in below if name in OF_THE_FORGE or name[0] not in "._")
        paths = [Path(directory, name) for name in sorted(names)]
        found += [path for path in paths if any(map(path.match, patterns))]
    return found


PAGES = [page for page in files("*.md") if "tests" not in page.relative_to(ROOT).parts]


def anchors(page):
    heads = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_relative_link_leads_somewhere(page):
    for path, anchor in LINK.findall(CODE.sub("", page.read_text())):
        leads_to = page.parent / path if path else page
        assert leads_to.exists(), path
        if anchor and leads_to.suffix == ".md":
            assert anchor in anchors(leads_to), f"{path}#{anchor}"


def test_each_page_that_a_file_mentions_exists():
    mentioned = [
        (str(file.relative_to(ROOT)), name)
        for file in files(*OWN)
        if file.name != "CHANGELOG.md"
        for name in MENTION.findall(file.read_text())
    ]
    assert len(mentioned) > len(PAGES)
    assert [found for found in mentioned if not (ROOT / found[1]).exists()] == []


def test_each_module_that_a_page_names_exists():
    places = [ROOT, ROOT / "src" / "virtbackup_async", ROOT / "src", ROOT / "tests" / "support"]
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    named = [
        (str(page.relative_to(ROOT)), name)
        for page in pages
        for name in MODULE.findall(page.read_text())
    ]
    assert len(named) > len(pages)
    missing = [
        found for found in named if not any((place / found[1]).is_file() for place in places)
    ]
    assert missing == []


def test_the_index_leads_to_every_page():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / path).resolve() for path, _ in LINK.findall(index.read_text())}
    pages = {page for page in PAGES if (ROOT / "docs") in page.parents} - {index}
    assert pages <= linked


@pytest.mark.parametrize("form", ["bug.yml", "feature.yml"])
def test_each_issue_form_is_one(form):
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / form).read_text()
    loaded = yaml.safe_load(text)
    assert loaded.keys() == {"name", "description", "labels", "body"}
    asked = [part for part in loaded["body"] if part["type"] != "markdown"]
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in asked)
    assert len({part["id"] for part in asked}) == len(asked)
    for page in re.findall(r"`([\w/-]+\.md)`", text):
        assert (ROOT / page).is_file(), page
