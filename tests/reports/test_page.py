"""The page as a file: whole, safe, the same every time, and nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import streamcurate as sc
from streamcurate.errors import ConfigError, InputError, RunError
from streamcurate.reports import report
from streamcurate.reports.markup import escaped
from streamcurate.reports.page import SECTIONS
from streamcurate.runs import Manifest

VOID = {"meta", "img", "br", "path", "circle", "rect"}


class Parsed(HTMLParser):
    """Elements, their attributes and texts; every element is closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, list[str]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if self.open and self.open[-1] == "svg":
            self.inside[-1][1].append(tag)
        if tag == "svg":
            self.inside.append((tag, []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(made, tmp_path_factory) -> tuple[str, sc.Selection]:
    folder = tmp_path_factory.mktemp("page")
    tree = sc.open_tree(made / "run")
    captions = [f"<img src=x onerror=alert({row})>" for row in range(500)]
    pyarrow.parquet.write_table(pyarrow.table({"caption<i>": captions}), folder / "meta.parquet")
    selection = tree.sample(80, seed=1)
    report(tree, folder / "report.html", selection, metadata=folder / "meta.parquet")
    return (folder / "report.html").read_text(encoding="utf-8"), selection


def test_the_page_is_well_formed_and_all_of_it_is_here(written) -> None:
    parsed = Parsed(written[0])
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [name for name, _ in SECTIONS if name not in ids] == []
    links = [attributes["href"] for attributes in parsed.of("a")]
    assert [link for link in links if not link or link[1:] not in ids] == []
    for attributes in parsed.of("svg"):
        assert [name for name in (attributes["aria-labelledby"] or "").split() if name not in ids] == []
        assert attributes["role"] == "img"
    assert len(parsed.inside) >= 10
    assert all(names[:2] == ["title", "desc"] for _, names in parsed.inside)
    headings = [int(name[1]) for name, _ in parsed.elements if re.fullmatch("h[1-6]", name)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert max(np.diff(headings)) <= 1
    assert all("scope" in attributes for attributes in parsed.of("th"))
    assert len(parsed.of("caption")) == len(parsed.of("table"))


def test_nothing_comes_from_elsewhere(written) -> None:
    content, _ = written
    assert not re.search(r"https?:|//\w|@import|@font-face|url\(", content)
    parsed = Parsed(content)
    assert not {tag for tag, _ in parsed.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("data:image/") for attributes in parsed.of("img"))


def test_hostile_ids_and_texts_are_shown_as_they_are(written) -> None:
    content, _ = written
    assert "<script" not in content
    assert "<img src=x" not in content
    assert "\u202e" not in content
    said = "".join(Parsed(content).texts)
    assert '"><script>alert(1)</script>&\\u202e\\u0007' in said
    assert "<img src=x onerror=alert(" in said
    assert "caption<i>" in said


def test_the_numbers_are_those_of_the_draw(written, made) -> None:
    content, selection = written
    said = " ".join("".join(Parsed(content).texts).split())
    assert "500 rows in 2 levels of clusters (30, 6); a draw of 80 rows (16.0 %)." in said
    assert str(sc.open_tree(made / "run").digest) in said
    top = np.bincount(selection.labels[-1], weights=selection.copies)
    assert f"{100 * top.max() / 80:.1f} %of the draw from the largest cluster of level 2" in said
    assert "all 500 rows of the pool" in said


def test_the_same_arguments_give_the_same_bytes(made, tmp_path) -> None:
    found = []
    for name, threads in (("a.html", 1), ("b.html", 2)):
        written = report(made / "run", tmp_path / name, size=70, threads=threads)
        found.append((tmp_path / name).read_bytes())
        assert written.bytes == len(found[-1])
        assert written.figures["drawn"] == 70
    assert found[0] == found[1]


def test_a_run_without_its_store_or_log_has_a_page_that_says_so(made, tmp_path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    manifest = Manifest.read(tmp_path / "run")
    replace(manifest, store=replace(manifest.store, path=str(tmp_path / "gone.zarr"))).write(tmp_path / "run")
    (tmp_path / "run" / "events.jsonl").unlink()
    written = report(tmp_path / "run", tmp_path / "a.html")
    said = "".join(Parsed((tmp_path / "a.html").read_text(encoding="utf-8")).texts)
    assert written.figures["coverage"] is None
    assert f"Not measured: the rows that the tree was built from are not there any more ({tmp_path}/gone.zarr)" in said
    assert "Ids are not shown:" in said
    assert "Not known: events.jsonl is not there." in said


def test_degenerate_levels_are_called_so(tmp_path) -> None:
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.normal(0, 0.01, (400, 2)), generator.uniform(50, 900, (40, 2))]).astype(np.float32)
    tree = sc.cluster(rows, tmp_path / "run", levels=[60, 40])
    assert any("is degenerate" in text for text in tree.warnings)
    written = report(tree, tmp_path / "a.html")
    content = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<span class="badge">degenerate</span>' in content
    assert all(escaped(text[1:]) in content for text in tree.warnings)
    assert any(level["degenerate"] for level in written.figures["levels"])
    assert "an array in memory" in content


def test_one_level_cosine_and_a_subset(tmp_path) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 1)).astype(np.float32) + 3
    tree = sc.cluster(rows, tmp_path / "run", levels=[1], metric="cosine", subset=np.arange(10, 200))
    written = report(tree, tmp_path / "a.html", size=190)
    Parsed((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert written.figures["rows"] == 190
    assert written.figures["levels"][0]["draw"]["effective"] == 1


def test_the_page_stays_small_whatever_texts_hold(tmp_path) -> None:
    """The most exemplars, with the longest ids and texts, all of it characters that take six as markup."""
    count = 1200
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"{row}{chr(39) * 3000}\n" for row in range(count)))
    store = sc.ingest(tmp_path / "a.npy", tmp_path / "a.zarr", ids=tmp_path / "ids.txt")
    columns = {f"column {number}": ["'" * 500] * count for number in range(30)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "meta.parquet")
    tree = sc.cluster(store, tmp_path / "run", levels=[100])
    written = report(tree, tmp_path / "a.html", metadata=tmp_path / "meta.parquet")
    # Thumbnails of 5,000 bytes, a third more as text, may come beside.
    assert written.bytes + 60 * 6 * 6_700 < 5e6
    assert "columns more" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"out": "a.pdf"}, InputError, "name a file that ends in .html"),
        ({"out": "no/a.html"}, InputError, "does not exist; create it first"),
        ({"size": 501}, InputError, "at most 500 can be drawn"),
        ({"branch": "x"}, ConfigError, "branch 'x'"),
        ({"columns": "a"}, ConfigError, "columns: 'a' is of the metadata"),
        ({"memory_limit": "1MiB"}, ConfigError, "the smallest supported is 512 MiB"),
        ({"selection": "absent.npy"}, InputError, "absent.npy: no such file"),
        ({"tree": "nowhere"}, RunError, "is no run directory"),
    ],
)
def test_errors_leave_no_page(made, tmp_path, options, error, said) -> None:
    given = {"tree": made / "run", "out": "a.html", **options}
    tree, out = given.pop("tree"), tmp_path / given.pop("out")
    with pytest.raises(error, match=said):
        report(tree, out, **given)
    assert list(tmp_path.iterdir()) == []


def test_metadata_of_other_rows_is_refused(made, tmp_path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["a", "b"]}), tmp_path / "meta.parquet")
    with pytest.raises(InputError, match="the metadata has 2 rows, and the tree is of 500"):
        report(made / "run", tmp_path / "a.html", metadata=tmp_path / "meta.parquet")


def test_metadata_by_key(made, tmp_path) -> None:
    ids = (made / "ids.txt").read_text().splitlines()[::-1]
    table = pyarrow.table({"name": ids, "caption": [f"said of {number}" for number in range(499, -1, -1)]})
    pyarrow.parquet.write_table(table, tmp_path / "meta.parquet")
    report(
        made / "run", tmp_path / "a.html", metadata=tmp_path / "meta.parquet", metadata_key="name", columns="caption"
    )
    found = re.findall(r"row ([\d,]+), distance.*?said of (\d+)", (tmp_path / "a.html").read_text(encoding="utf-8"))
    assert len(found) > 20
    assert all(row.replace(",", "") == number for row, number in found)


# -- in a browser ------------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def screenshot(page: Path, width: int, folder: Path, *options: str) -> np.ndarray:
    """Pixels of the page's beginning as 0xRRGGBB; int32 (height, width)."""
    target = folder / f"{width}{len(options)}.png"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},3000", f"--screenshot={target}", *options,
        page.as_uri(),
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    return (imread(target)[..., :3] * 255).round().astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_it_can_be_seen_in_light_dark_and_on_a_phone(written, tmp_path) -> None:
    page = tmp_path / "report.html"
    page.write_text(written[0], encoding="utf-8")
    light = screenshot(page, 1200, tmp_path)
    dark = screenshot(page, 1200, tmp_path, "--blink-settings=preferredColorScheme=0")
    phone = screenshot(page, 390, tmp_path)
    assert (light.shape[1], phone.shape[1]) == (1200, 390)
    assert (light[:5] == 0xF6F7F9).all()
    assert (dark[:5] == 0x12151A).all()
    for pixels in (light, dark, phone):
        # Something is to be seen all the way down.
        assert all(len(np.unique(part[::2])) > 10 for part in np.array_split(pixels, 6))
    # The draw's colour, in marks and curves.
    assert (light == 0x1A62B8).sum() > 500
    assert (dark == 0x6FB4FA).sum() > 500
    assert (phone == 0x1A62B8).sum() > 500
    # Nothing reaches beyond the phone's edge: the margin is the page's own colour.
    assert (phone[:, -4:] == 0xF6F7F9).all()
