"""Rows of top clusters, their texts and thumbnails, and the branch to one of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.errors import ConfigError, InputError
from streamcurate.reports.branch import follow, parse_branch
from streamcurate.reports.drawn import take_draw
from streamcurate.reports.exemplars import choose_clusters, nearest_rows
from streamcurate.reports.thumbnails import Images, Pictures, cell_text, find_images
from streamcurate.sampling import read_hierarchy


def test_the_largest_half_and_others_over_the_whole_order() -> None:
    sizes = np.array([5, 0, 100, 7, 7, 1, 2, 3, 4, 50])
    assert choose_clusters(sizes, most=20) == [2, 9, 3, 4, 0, 8, 7, 6, 5]
    assert choose_clusters(sizes, most=4) == [2, 9, 3, 5]
    many = np.random.default_rng(0).integers(1, 1000, 5000)
    chosen = choose_clusters(many)
    assert len(set(chosen)) == 60
    assert (np.diff(many[chosen]) <= 0).all()
    assert many[chosen[-1]] == many.min()


def test_nearest_rows_come_from_the_nearest_clusters(made) -> None:
    tree = sc.open_tree(made / "run")
    hierarchy = read_hierarchy(tree)
    leaf, top = (level.labels[:] for level in tree.levels)
    distances = tree.levels[0].distances[:]
    for cluster in range(6):
        found = nearest_rows(tree, hierarchy, cluster, 6)
        under = np.flatnonzero(top[leaf] == cluster)
        assert len(set(found)) == len(found) == min(6, len(under))
        assert set(found) <= set(under.tolist())
        # The first is the nearest of the nearest cluster.
        near = np.flatnonzero(top == cluster)
        near = near[np.argmin(tree.levels[1].distances[:][near])]
        own = np.flatnonzero(leaf == near)
        assert distances[found[0]] == distances[own].min()


def test_a_branch_tells_what_was_drawn(made) -> None:
    tree = sc.open_tree(made / "run")
    hierarchy = read_hierarchy(tree)
    draw = take_draw(tree, hierarchy, None, 60, {"seed": 2})
    leaf, top = (level.labels[:] for level in tree.levels)
    for wanted in (None, 17, (1, 4), (2, 3)):
        branch = follow(tree, hierarchy, draw, wanted, {})
        assert branch.steps is not None
        assert "gives" in (branch.text or "")
        for node, step in zip(branch.nodes, branch.steps, strict=True):
            labels = leaf if node.level == 1 else top[leaf]
            assert node.rows == np.count_nonzero(labels == node.cluster)
            assert node.drawn == np.isin(draw.rows, np.flatnonzero(labels == node.cluster)).sum()
            assert step["child"]["quota"] == node.drawn
    assert [node.cluster for node in follow(tree, hierarchy, draw, 17, {}).nodes] == [top[leaf[17]], leaf[17]]
    # A draw of which it is not known how it was made.
    other = take_draw(tree, hierarchy, draw.rows, None, {})
    assert follow(tree, hierarchy, other, 17, {}).steps is None


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (500, "row 500 is not in"),
        ((3, 0), "level 3 is not in"),
        ((1, 30), "cluster 30 is not in level 1"),
    ],
)
def test_a_branch_that_is_not_there(made, wanted, said) -> None:
    tree = sc.open_tree(made / "run")
    hierarchy = read_hierarchy(tree)
    with pytest.raises(InputError, match=said):
        follow(tree, hierarchy, take_draw(tree, hierarchy, None, 9, {}), wanted, {})


@pytest.mark.parametrize("text", ["", "x", "1:", ":2", "-1", "1:2:3"])
def test_what_is_no_branch(text) -> None:
    with pytest.raises(ConfigError, match="give a row, or a level"):
        parse_branch(text)


def image(size: tuple[int, int], kind: str, mode: str = "RGB") -> bytes:
    PIL = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], len(mode)), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.fromarray(noise.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def test_thumbnails_are_small_and_of_the_same_shape(tmp_path) -> None:
    PIL = pytest.importorskip("PIL.Image")
    (tmp_path / "a.jpg").write_bytes(image((800, 400), "jpeg"))
    (tmp_path / "b.png").write_bytes(image((8, 8), "png", "RGBA"))
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with Pictures(Images(None, str(tmp_path))) as pictures:
        wide, small = (pictures.of(None, name) for name in ("a", "b.png"))
        for found, size in ((wide, (96, 48)), (small, (8, 8))):
            assert found is not None
            assert found.startswith("data:image/")
            data = base64.b64decode(found.partition(",")[2])
            assert len(data) <= 5000
            assert PIL.open(io.BytesIO(data)).size == size
        assert pictures.missing == 0
        assert pictures.of(None, "c") is None
        assert pictures.of(None, "d") is None
        assert pictures.missing == 2
    held = Pictures(Images("image", str(tmp_path)))
    for cell in ("b.png", (tmp_path / "b.png").read_bytes(), {"bytes": None, "path": str(tmp_path / "b.png")}):
        assert held.of(cell, None) == small
    assert held.of(None, "b.png") is None


def test_images_are_a_folder_or_a_column(tmp_path) -> None:
    pytest.importorskip("PIL.Image")
    assert find_images(None, None, False) is None
    assert find_images(tmp_path, None, True) == Images(None, str(tmp_path))
    with pytest.raises(ConfigError, match="neither a folder nor a column"):
        find_images("nowhere", None, True)
    with pytest.raises(ConfigError, match="the store has none"):
        find_images(tmp_path, None, False)


def test_texts_are_cut() -> None:
    assert len(cell_text("x" * 1000)) == 240
    assert cell_text("x" * 1000).endswith("…")
