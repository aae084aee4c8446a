"""Weights, caps and leasts as users give them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from streamcurate.errors import ConfigError, InputError
from streamcurate.sampling.hierarchy import read_hierarchy
from streamcurate.sampling.weights import read_weights


def told(found):
    """What is said of each cluster, as plain values."""
    return {
        (level, int(cluster)): (None if np.isnan(weight) else float(weight), int(cap), int(least))
        for level, said in found.levels.items()
        for cluster, weight, cap, least in zip(said.clusters, said.weights, said.caps, said.leasts, strict=True)
    }


SAID = {(1, 3): (2.5, -1, -1), (2, 0): (None, 10, 4), (1, 0): (0.0, -1, -1)}
ENTRIES = [
    {"level": 1, "cluster": 3, "weight": 2.5},
    {"level": 2, "cluster": 0, "cap": 10, "least": 4},
    {"level": 1, "cluster": 0, "weight": 0},
]
COLUMNS = {
    "level": [1, 2, 1],
    "cluster": [3, 0, 0],
    "weight": [2.5, None, 0.0],
    "cap": [None, 10, None],
    "least": [None, 4, None],
}
CSV = "level,cluster,weight,cap,least\n1,3,2.5,,\n2,0,,10,4\n1, 0 ,0,,\n"


def test_all_ways_of_giving_them_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "bom.csv").write_text("\ufeff" + CSV.replace("\n", "\r\n"))
    pyarrow.parquet.write_table(pa.table(COLUMNS), tmp_path / "a.parquet")
    for given in (
        ENTRIES,
        COLUMNS,
        pa.table(COLUMNS),
        *(tmp_path / name for name in ("a.csv", "bom.csv", "a.parquet")),
    ):
        assert told(read_weights(given)) == SAID
    assert told(read_weights({(1, 3): 2.5, (1, 0): 0})) == {(1, 3): (2.5, -1, -1), (1, 0): (0.0, -1, -1)}
    found = read_weights(tmp_path / "a.csv")
    assert read_weights(found) is found
    assert found.of(2, 0).place == f"{tmp_path / 'a.csv'}: line 3"
    assert found.of(2, 1) is None
    assert found.of(3, 0) is None


def test_missing_numbers_in_floating_columns_say_nothing(tmp_path):
    # As pandas writes whole numbers with gaps.
    table = pa.table({"level": [1, 1], "cluster": [0, 1], "cap": pa.array([5.0, None], pa.float64())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert told(read_weights(tmp_path / "a.parquet")) == {(1, 0): (None, 5, -1), (1, 1): (None, -1, -1)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("level,weight\n1,1\n", "no column 'cluster'"),
        ("level,cluster\n1,1\n", "none of the columns weight, cap and least is there"),
        ("level,cluster,wieght\n1,1,1\n", "column 'wieght' is unknown; did you mean 'weight'?"),
        ("level,cluster,weight,weight\n1,1,1,2\n", "a column is there twice"),
        (
            "level,cluster,weight\n1,0,1\n1,1,-2\n",
            "line 3: weight -2 cannot be; give 0 or a number from 1e-50 to 1e+50",
        ),
        ("level,cluster,weight\n1,0,nan\n", "line 2: weight nan cannot be"),
        ("level,cluster,weight\n1,0,inf\n", "line 2: weight inf cannot be"),
        ("level,cluster,weight\n1,0,1e-60\n", "line 2: weight 1e-60 cannot be"),
        ("level,cluster,weight\n1,0,1\n1,1,much\n", "line 3: weight 'much' is no number"),
        ("level,cluster,cap\n1,0,2.5\n", "line 2: cap '2.5' is no whole number"),
        ("level,cluster,cap\n1,0,-1\n", "line 2: cap -1 cannot be"),
        ("level,cluster,least\n1,0,99999999999999999999\n", "line 2: least '99999999999999999999' is no whole number"),
        ("level,cluster,weight\n1,,1\n", "line 2: cluster is missing"),
        ("level,cluster,weight\n,1,1\n", "line 2: level is missing"),
        ("level,cluster,weight\n1,0,1\n1,1,1\n1,0,2\n", "line 4: cluster 0 of level 1 is named already in line 2"),
        ("level,cluster,cap,least\n1,0,2,3\n", "line 2: least 3 cannot be met: its cap is 2"),
        ("level,cluster,weight,least\n1,0,0,3\n", "line 2: least 3 cannot be met: a weight of 0 gives nothing"),
        ("\nlevel,cluster,weight\n1,0,1\n\r\n1,1,-2\n", "line 5: weight -2 cannot be"),
        ('level,cluster,weight\n1,"0\n",1\n1,1,-2\n', "line 4: weight -2 cannot be"),
        ("level,cluster,weight\n1,0\n", "not a readable CSV file"),
        (f'level,cluster,"{"w" * 200_000}"\n\n1,0,1\n', "not a readable CSV file"),
        ("", "not a readable CSV file"),
    ],
)
def test_bad_files_are_named_with_line_and_value(tmp_path, text, said):
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([(0, 0)], "entry 1: level 0 does not exist; the levels are 1 to 2"),
        ([(1, 0), (3, 0)], "entry 2: level 3 does not exist"),
        ([(1, 2), (2, 2)], "entry 2: level 2 has no cluster 2; its clusters are 0 to 1"),
    ],
)
def test_what_is_not_in_the_tree_is_refused(make_tree, entries, said):
    hierarchy = read_hierarchy(make_tree([0, 1, 2], [0, 1, 1]))
    with pytest.raises(InputError, match=said):
        read_weights(dict.fromkeys(entries, 1)).check(hierarchy)


def test_other_files_and_objects_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "absent.csv")
    (tmp_path / "w.txt").write_text("1")
    with pytest.raises(InputError, match=r"read from \.csv or \.parquet"):
        read_weights(tmp_path / "w.txt")
    (tmp_path / "w.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="not a readable PARQUET file"):
        read_weights(tmp_path / "w.parquet")
    pyarrow.parquet.write_table(pa.table({"level": [1], "cluster": [0], "weight": [[1.0]]}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match="column 'weight' holds list"):
        read_weights(tmp_path / "l.parquet")
    for given in (7, [1, 2], {1: 2}, {(1, 0): "much"}, [{"level": 1, "cluster": 0, "cap": 2**70}], {(2**70, 0): 1}):
        with pytest.raises(ConfigError, match="weights: "):
            read_weights(given)
