"""Readers of other packages: found by their entry points, held to what readers promise."""

from __future__ import annotations

import importlib
import sys
from textwrap import dedent

import numpy as np
import pytest

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import known_formats, open_sources
from streamcurate.errors import DataError, InputError

# As somebody who read the docstring of streamcurate.embeddings.sources might write it: text, one row a line.
READER = """
import numpy as np
from streamcurate.embeddings.sources import TEXT, Stamp, block_rows
from streamcurate.errors import InputError

class Reader:
    ids_dtype = TEXT
    bad_values = "NaN or Inf"
    read_overhead_bytes = 0
    dtype = np.dtype(np.float32)

    def __init__(self, path):
        self.name = path
        with open(path) as file:
            lines = [line.split() for line in file]
        if not lines:
            raise InputError(f"{path}: empty; write a line for each row")
        self.rows, self.dims = len(lines), len(lines[0]) - 1

    def stamps(self):
        return [Stamp.of(self.name)]

    def blocks(self, start):
        with open(self.name) as file:
            for number, line in enumerate(file):
                if number >= start:
                    name, *values = line.split()
                    yield np.array([values], dtype=np.float32), np.array([name], dtype=TEXT)

def open_reader(path, column, ids):
    return Reader(path)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with one module and one entry point where packages are looked for."""
    site = tmp_path / "site"

    def make(name: str, code: str, point: str = ".words", value: str = "{name}") -> None:
        module = f"module_of_{name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(dedent(code))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[streamcurate.sources]\n{point} = {value.format(name=module)}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(site)
    return make


@pytest.fixture
def file(tmp_path):
    """Three rows of two values with names."""
    path = tmp_path / "x.words"
    path.write_text("a 1 2\nb 3 4\nc 5 6\n")
    return path


@pytest.mark.parametrize("value", ["{name}", "{name}:open_reader", "{name}:Reader.of"])
def test_rows_and_ids_of_another_packages_format(install, file, value):
    code = READER + "\nReader.of = staticmethod(open_reader)\n"
    install("words", code, value=value)
    assert known_formats()[-1] == ".words"
    store = ingest(file, file.parent / "e.zarr", rows_per_chunk=2)
    assert store.read(0, 3).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert store.take_ids(np.arange(3)).tolist() == ["a", "b", "c"]
    (reader,) = open_sources(file)
    assert [ids.tolist() for _, ids in reader.blocks(2)] == [["c"]]
    # A folder of such files is a source like any other.
    (file.parent / "many").mkdir()
    (file.parent / "many" / "y.words").write_text("d 7 8\n")
    assert [reader.name for reader in open_sources(file.parent / "many")] == [str(file.parent / "many" / "y.words")]


def test_a_format_of_folders(install, tmp_path):
    code = READER.replace("open(path)", "open(path + '/rows')").replace("open(self.name)", "open(self.name + '/rows')")
    install("words", code.replace("Stamp.of(self.name)", "Stamp.of(self.name + '/rows')"))
    for name in ("p10.words", "p9.words"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "rows").write_text(f"{name} 1 2\n")
    assert [reader.rows for reader in open_sources(tmp_path / "all" / "p9.words")] == [1]
    store = ingest(tmp_path / "all", tmp_path / "e.zarr")
    assert store.take_ids(np.arange(2)).tolist() == ["p9.words", "p10.words"]


def test_what_a_reader_refuses_is_said_as_it_says_it(install, file):
    install("words", READER)
    file.write_text("")
    with pytest.raises(InputError, match=f"^{file}: empty; write a line for each row$"):
        open_sources(file)
    with pytest.raises(InputError, match="no such file"):
        open_sources(file.parent / "absent.words")


def test_our_own_formats_stay_ours(install, tmp_path):
    install("thief", "raise RuntimeError", point=".npy")
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    assert open_sources(tmp_path / "x.npy")[0].rows == 3
    assert known_formats().count(".npy") == 1


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        ("import absent_module", "{name}", "cannot be loaded .*absent_module"),
        ("x = 1 / 0", "{name}", "cannot be loaded .ZeroDivisionError"),
        ("x = 1", "{name}:open_reader", "cannot be loaded .AttributeError"),
        ("x = 1", "{name}:x", "is no function, and no module with open_reader"),
        ("x = 1", "{name}", "is no function, and no module with open_reader"),
        ("def open_reader(path): pass", "{name}", "failed .TypeError"),
        ("def open_reader(path, column, ids): raise KeyError('emb')", "{name}", "failed .KeyError: 'emb'"),
        ("def open_reader(path, column, ids): return [1]", "{name}", "gives a list without name, rows, dims"),
        (READER.replace("np.dtype(np.float32)", "np.dtype(int)"), "{name}", "says its rows are int64"),
        (READER.replace("np.dtype(np.float32)", "np.dtype('>f4')"), "{name}", "says its rows are >f4"),
        (READER.replace("ids_dtype = TEXT", "ids_dtype = 'U'"), "{name}", "says its ids are <U0"),
    ],
)
def test_one_that_does_not_work_is_named(install, file, code, value, message):
    install("broken", code, value=value)
    with pytest.raises(InputError, match=rf"{file}: the reader of \.words files in the package broken 1\.2 {message}"):
        open_sources(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("if number >= start", "if number >= start and number < 2", "gives 2 rows, and said 3"),
        (
            "[values], dtype=np.float32",
            "values, dtype=np.float32",
            "gives blocks that are not arrays of float32 in two",
        ),
        ("[values], dtype=np.float32", "[values], dtype=np.float16", "gives blocks that are not arrays of float32"),
        ("np.array([values]", "np.array([values[:1]]", "gives rows of 1 values behind row 0, and said 2"),
        ("np.array([name], dtype=TEXT)", "None", "does not give 1 ids of"),
        ("np.array([name], dtype=TEXT)", "np.array([name, name], dtype=TEXT)", "does not give 1 ids of"),
        (
            "name, *values = line.split()",
            "name, *values = line.split()[: 3 // min(2 - number, 1)]",
            "failed behind row 2 .Zero",
        ),
    ],
)
def test_blocks_are_checked(install, file, old, new, message):
    assert old in READER
    install("broken", READER.replace(old, new))
    with pytest.raises(DataError, match=rf"in the package broken 1\.2 {message}"):
        ingest(file, file.parent / "e.zarr")
    assert not list(file.parent.glob("e.zarr*"))


def test_two_packages_for_one_suffix(install, file):
    install("one", READER)
    install("two", READER)
    with pytest.raises(InputError, match=r"\.words files: several installed packages read them \(one 1\.2, two 1\.2\)"):
        open_sources(file)
