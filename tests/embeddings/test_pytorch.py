"""PyTorch files, as torch writes them: plain tensors come back bit by bit, everything else is refused."""

from __future__ import annotations

import os
import sys
import zipfile

import numpy as np
import pytest

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base, open_sources, pytorch
from streamcurate.embeddings.sources.pytorch import TorchReader
from streamcurate.errors import DataError, InputError

torch = pytest.importorskip("torch")

VALUES = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)


def written(path, value, **options) -> str:
    torch.save(value, path, **options)
    return str(path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("start", [0, 13, 49, 50])
@pytest.mark.parametrize("mapped", [1, 400, 1 << 20])
def test_round_trip(tmp_path, monkeypatch, dtype, start, mapped):
    monkeypatch.setattr(base, "BLOCK_BYTES", 100)
    monkeypatch.setattr(pytorch, "_MAPPED_BYTES", mapped)
    tensor = torch.from_numpy(VALUES).to(getattr(torch, dtype))
    reader = TorchReader(written(tmp_path / "x.pt", tensor))
    # float32 holds every bfloat16, float16 does not.
    expected = tensor.float().numpy() if dtype == "bfloat16" else tensor.numpy()
    assert (reader.rows, reader.dims, reader.dtype, reader.ids_dtype) == (50, 6, expected.dtype, None)
    read = np.concatenate([np.empty((0, 6), expected.dtype), *(block for block, _ in reader.blocks(start))])
    assert read.tobytes() == expected[start:].tobytes()


def test_ingest_with_ids(tmp_path):
    # A parameter, a view of a larger tensor, and a bfloat16 beyond float16.
    large = torch.from_numpy(np.repeat(VALUES, 2, axis=0)).bfloat16()
    large[0, 0] = 1e38
    ids = torch.arange(50, dtype=torch.int32) * 3
    path = written(
        tmp_path / "x.pth",
        {"a": torch.nn.Parameter(torch.from_numpy(VALUES)), "b": large[::2], "key": ids, "s": "text"},
    )
    store = ingest(path, tmp_path / "e.zarr", column="b", ids="key", rows_per_chunk=7)
    assert store.dtype == np.float32
    assert store.read(0, 50).tobytes() == large[::2].float().numpy().tobytes()
    assert store.take_ids(np.arange(50)).tolist() == ids.tolist()
    (reader,) = open_sources(path, column="a")
    assert next(reader.blocks(0))[0].tobytes() == VALUES.tobytes()


def test_which_tensor(tmp_path):
    tensor = torch.from_numpy(VALUES)
    path = written(
        tmp_path / "x.pt",
        {
            "a": tensor,
            "b": tensor,
            "n": torch.arange(50),
            "few": torch.arange(4),
            "m": torch.zeros(50, 2, dtype=torch.int32),
            "t": tensor.T.contiguous().T,
            "sparse": tensor.to_sparse(),
            "words": ["x"] * 50,
        },
    )
    cases = {
        (None, None): "several tensors may be embeddings; choose with --column one of 'a', 'b', 't'",
        ("c", None): "no dense tensor 'c'; it has 'a', 'b'",
        ("sparse", None): "no dense tensor 'sparse'",
        ("a", "words"): "no dense tensor 'words'",
        ("n", None): "tensor 'n': an array of 1 dimensions",
        ("m", None): "tensor 'm': holds int32, and embeddings are",
        ("t", None): "tensor 't': saved transposed.*contiguous",
        ("a", "few"): r"tensor 'few': shape \(4,\) of int64; ids in .pt files are 50 integers",
        ("a", "b"): r"tensor 'b': shape \(50, 6\) of float32",
    }
    for (column, ids), message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            TorchReader(path, column, ids)
        assert str(error.value).startswith(path)
    path = written(tmp_path / "one.pt", tensor)
    with pytest.raises(InputError, match=r"a single tensor, which has no name \(--column a\); leave it out"):
        TorchReader(path, "a")
    with pytest.raises(InputError, match=r"has no name \(--ids a\); give --ids a file"):
        TorchReader(path, None, "a")
    for value, message in (
        ([tensor], "holds a list"),
        ({"x": {"a": tensor}}, "it has no tensors"),
        (tensor.to_sparse(), "holds a Tensor; save a dense tensor"),
        (torch.zeros(50, 2, dtype=torch.complex64), "holds complex64"),
    ):
        with pytest.raises(InputError, match=message):
            TorchReader(written(tmp_path / "x.pt", value))


def test_no_code_is_loaded(tmp_path):
    path = written(tmp_path / "x.pt", {"a": torch.from_numpy(VALUES), "f": os.path.join})
    with pytest.raises(InputError, match=r"more than tensors, which is never loaded; save the tensor alone"):
        TorchReader(path)


def test_other_files_and_damage(tmp_path):
    path = tmp_path / "x.pt"
    written(path, torch.from_numpy(VALUES), _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before version 1\.6, which takes as much memory.*torch\.save"):
        TorchReader(str(path))
    written(path, torch.from_numpy(VALUES))
    good = path.read_bytes()
    for data in (b"", b"hello", good[:10], good[: len(good) // 2], good[:-30]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="not a PyTorch file, or damaged"):
            TorchReader(str(path))
    path.write_bytes(good)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            other = {"little": b"big", "big": b"little"}[sys.byteorder]
            archive.writestr(name, other if name.endswith("byteorder") else data)
    with pytest.raises(InputError, match="a machine of the other byte order"):
        TorchReader(str(path))
    with pytest.raises(InputError, match="no such file"):
        TorchReader(str(tmp_path / "absent.pt"))
    with pytest.raises(InputError, match="a folder"):
        TorchReader(str(tmp_path))
    with pytest.raises(InputError, match="disks only"):
        TorchReader("https://host/x.pt")


def test_changed_while_being_read(tmp_path):
    path = tmp_path / "x.pt"
    reader = TorchReader(written(path, torch.from_numpy(VALUES)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="was changed while it was read"):
        list(reader.blocks(0))


def test_without_torch(tmp_path, monkeypatch):
    path = written(tmp_path / "x.pt", torch.from_numpy(VALUES))
    monkeypatch.setattr(pytorch.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"needs PyTorch; pip install torch, or save the tensor as \.safetensors"):
        TorchReader(path)


def absent(name):
    raise ModuleNotFoundError(name)
