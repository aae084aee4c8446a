"""From a pool to files, and again over what an earlier call left."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from matplotlib.image import imread

from streamcurate.demo import Curated, Pool, curate, prepare_folder
from streamcurate.demo.curation import MARKER
from streamcurate.demo.measures import shares
from streamcurate.demo.pictures import draw_picture, make_figure
from streamcurate.embeddings.store import open_embeddings
from streamcurate.errors import InputError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare_folder(tmp_path / "demo")


@pytest.fixture
def curated(pool: Pool, place: Path) -> Curated:
    return curate(pool, place)


def test_every_step_lies_on_disk(curated: Curated, pool: Pool) -> None:
    store = open_embeddings(curated.folder / "emb.zarr")
    np.testing.assert_array_equal(store.read(0, store.rows), pool.rows)
    drawn = pyarrow.parquet.read_table(curated.folder / "curated.parquet").to_pydict()
    assert drawn["row"] == curated.selection.unique_rows.tolist()
    assert drawn["id"] == [pool.ids[row] for row in drawn["row"]]
    assert (curated.folder / "run" / "run.json").exists()


def test_the_draw_is_more_even_than_the_pool(curated: Curated) -> None:
    assert len(curated.selection) == 16
    assert curated.after < curated.before / 3


def test_figures_are_those_of_the_rows(curated: Curated) -> None:
    figures = curated.figures()
    assert figures["counts"]["before"] == [50, 10]
    assert sum(figures["counts"]["random"]) == sum(figures["counts"]["after"]) == 16
    assert figures["digest"] == curated.tree.digest


def test_pictures_are_pictures(curated: Curated) -> None:
    picture = imread(io.BytesIO(curated.picture.read_bytes()), format="png")
    assert picture.shape[0] > 100
    assert picture.shape[1] > 500
    assert picture[..., :3].std() > 0.01
    assert draw_picture(curated) == curated.picture.read_bytes()


def test_panels_of_points_have_one_scale_and_the_draws_larger_dots(curated: Curated, pool: Pool) -> None:
    panels = make_figure(replace(curated, pool=replace(pool, name="rings"))).axes
    assert len(panels) == 3
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    all_points, at_random, drawn = (axes.collections[0].get_sizes()[0] for axes in panels)
    assert at_random == drawn > all_points


def test_bars_and_titles_tell_of_all_rows_of_chance_and_of_the_draw(curated: Curated, pool: Pool) -> None:
    bars, random, balanced = make_figure(curated).axes
    shown = [[bar.get_height() for bar in container] for container in bars.containers]
    chosen = (None, curated.at_random, curated.selection.rows)
    assert shown == [shares(pool.counts(rows)).tolist() for rows in chosen]
    values = [f"KL {value:.3f}" for value in (curated.before, curated.random, curated.after)]
    for text, value in zip(bars.get_legend().get_texts(), values, strict=True):
        assert text.get_text().endswith(value)
    assert [axes.get_title().rsplit(", ", 1)[1] for axes in (random, balanced)] == values[1:]


def test_again_builds_nothing_anew(curated: Curated, pool: Pool, place: Path) -> None:
    kept = {
        path: path.stat().st_mtime_ns
        for path in place.rglob("*")
        if path.is_file() and path.name not in {"curated.parquet", ".lock"} and path.suffix != ".png"
    }
    again = curate(pool, place)
    assert again.figures() == curated.figures()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_lost_store_is_made_again(curated: Curated, pool: Pool, place: Path) -> None:
    os.rename(curated.folder / "emb.zarr", place / "elsewhere")
    assert curate(pool, place).figures() == curated.figures()


class TestFolder:
    def test_another_one_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(InputError, match="is not empty and no folder of an earlier demo"):
            prepare_folder(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_an_empty_one_is_taken(self, tmp_path: Path) -> None:
        assert (prepare_folder(tmp_path) / MARKER).exists()

    def test_an_earlier_demo_is_taken_with_what_else_lies_there(self, tmp_path: Path) -> None:
        place = prepare_folder(tmp_path)
        (place / "notes.txt").touch()
        assert prepare_folder(tmp_path) == place

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(InputError, match="cannot be made a folder"):
                prepare_folder(path)
