"""The site as it is built: without a warning, every link and anchor leads somewhere, and everything public is in it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import click
import pytest

import streamcurate as sc
from streamcurate.cli.main import COMMANDS, streamcurate

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag in ("img", "script", "iframe") and found.get("src"):
            self.fetched.append(str(found["src"]))
        if tag == "link" and found.get("rel") in ("stylesheet", "preconnect", "icon") and found.get("href"):
            self.fetched.append(str(found["href"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """Every page of the site, built as the continuous integration builds it."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # Not with --quiet: warnings that are not shown are not counted, and the build passes.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # Proxies that are nowhere: the build must not ask the network for anything.
    offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    environment = os.environ | offline | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def page_of(site: dict[Path, Page], name: str) -> Page:
    (found,) = (page for path, page in site.items() if path.as_posix().endswith(name))
    return found


def test_links_and_anchors_lead_somewhere(site):
    broken = []
    seen = 0
    for path, page in site.items():
        if path.name == "404.html":  # its links are absolute: it is shown at any address
            continue
        for link in [*page.links, *page.fetched]:
            if re.match(r"(https?|mailto):", link):
                continue
            place, anchor = urldefrag(unquote(link))
            target = (path.parent / place).resolve() if place else path
            seen += 1
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif anchor and target in site and anchor not in site[target].anchors:
                broken.append(f"{path.name}: {link} (no such anchor)")
    assert seen > 500
    assert not broken


def test_a_reader_fetches_nothing_from_elsewhere(site):
    elsewhere = {link for page in site.values() for link in page.fetched if re.match(r"(https?:)?//", link)}
    assert not elsewhere
    (folder,) = {path.parent for path in site if path.name == "index.html"}
    sheets = list((folder / "assets").rglob("*.css"))
    assert sheets
    assert not [sheet for sheet in sheets if re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", [name for name in sc.__all__ if name != "__version__"])
def test_every_public_name_is_in_the_reference(site, name):
    page = page_of(site, "reference/api.html")
    assert f"streamcurate.{name}" in page.anchors


def test_docstrings_have_no_markup_of_other_systems(site):
    text = page_of(site, "reference/api.html").text
    assert not re.findall(r":(?:class|func|meth|attr|mod):`?", text)
    # Signatures that are another function's: without, they would be (embeddings, run, **options).
    assert "memory_limit=None" in text
    assert "**options" not in text.split("cluster(", 1)[1].split(")", 1)[0]


def test_every_command_and_option_is_in_the_reference(site):
    page = page_of(site, "reference/commands.html")
    root = click.Context(streamcurate)
    for name in COMMANDS:
        assert name in page.anchors
        command = streamcurate.get_command(root, name)
        assert command is not None
        for parameter in command.get_params(root):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in page.text, f"{name} {parameter.opts}"


def test_parts_of_the_readme_are_taken_from_it(site):
    """Not copied: what changes there changes here."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for heading, page in (("Limits", "/limits.html"), ("Measured", "/comparison.html")):
        section = readme.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
        words = re.findall(r"[A-Za-z]{6,}", section.split("](", 1)[0])
        text = page_of(site, page).text
        assert words
        assert not [word for word in words if word not in text]


def test_files_that_the_pages_name_are_there():
    missing = set()
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tests|benchmarks|streamcurate)/[\w/.]+?)(?:::\w+)?`", text):
            if not (ROOT / name).exists():
                missing.add(f"{page.name}: {name}")
        for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
            if f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8"):
                missing.add(f"{page.name}: {file}::{test}")
    assert not missing


def test_seconds_beside_peers_are_those_of_the_committed_result():
    """Each row of the table is, in its order, what one case of the result says of an iteration."""
    results = (ROOT / "benchmarks" / "results" / "peers.md").read_text(encoding="utf-8")
    cases = {}
    for case in results.split("\n## ")[1:]:
        title = re.match(r"(\w+)-\d+-\d+: ([\d,]+ × \d+) \w+, k = ([\d,]+)", case)
        if title is not None:
            cases[title.groups()] = dict(re.findall(r"^\| ([\w -]+?) \| ([\d.]+) \|", case, re.MULTILINE))
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| ([\d,]+ × \d+), (\w+)[^|]*\| ([\d,]+) \| (.+) \|$", page, re.MULTILINE)
    assert len(lines) >= 6
    for shape, kind, clusters, seconds in lines:
        told = cases[kind, shape, clusters]
        peers = ("streamcurate", "FAISS", "scikit-learn", "SuperKMeans")
        assert seconds.split(" | ") == [told[peer] for peer in peers], shape
