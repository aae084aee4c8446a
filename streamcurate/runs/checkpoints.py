"""Named intermediate results from which a run goes on after a kill."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder, write_json
from streamcurate.runs.digest import Digest

CHECKPOINTS_NAME = "checkpoints"
_FORMAT = 1
# A name's parts become parts of a file name: "." joins them, "+" begins the array's key. None of the two is in a part.
_NAME = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
_KEY = re.compile(r"[a-z0-9_-]+")


class Checkpoints:
    """Results by name in one folder: arrays as NPY files, values as JSON, all checksummed. No pickle.

    A result consists of one NPY file per array and a JSON file, written last: without it the result is not there. Array
    files are named by their content, so that writing a result again never touches the one that is there.

    Parameters
    ----------
    folder : path
        Made with the first result.
    durable : bool
        Flush to the device, so that results survive a power cut and not just a kill.
    """

    def __init__(self, folder: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.folder = Path(folder)
        self.durable = durable

    def save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any] | None = None) -> None:
        """Keep a result under a name such as ``level-1/step-0/iteration-3``, in place of an earlier one of that name.

        Parameters
        ----------
        name : str
            Parts of ``a-z 0-9 _ -`` joined by slashes.
        arrays : mapping of str to ndarray
            No object arrays. A contiguous array is written without a copy.
        values : mapping, optional
            What JSON can hold; no NaN.

        Raises
        ------
        DiskFullError
            The device is full; an earlier result of that name is still there.
        """
        base = _file_name(name)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        records = {key: self._save_array(base, key, array) for key, array in arrays.items()}
        content = {"format": _FORMAT, "name": name, "arrays": records, "values": dict(values or {})}
        sidecar = self.folder / f"{base}.json"
        write_json(sidecar, {**content, "checksum": _checksum(content)}, durable=self.durable)
        self._remove_arrays(base, {record["file"] for record in records.values()})

    def load(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """The arrays and values kept under ``name``; None where there are none, or where a file is torn or corrupt."""
        try:
            content = json.loads((self.folder / f"{_file_name(name)}.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        if not isinstance(content, dict) or content.pop("checksum", None) != _checksum(content):
            return None
        if content.get("format") != _FORMAT or content["name"] != name:
            return None
        arrays = {}
        for key, record in content["arrays"].items():
            array = self._load_array(record)
            if array is None:
                return None
            arrays[key] = array
        return arrays, content["values"]

    def discard(self, name: str) -> None:
        """Forget the result kept under ``name``, if there is one."""
        base = _file_name(name)
        with suppress(FileNotFoundError):
            (self.folder / f"{base}.json").unlink()
        self._remove_arrays(base, set())

    def _save_array(self, base: str, key: str, array: npt.NDArray[Any]) -> dict[str, Any]:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of an array")
        little = np.asarray(array)
        little = np.asarray(little, dtype=little.dtype.newbyteorder("<"), order="C")
        checksum = Digest().add(little).hexdigest()
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": little.dtype.str, "fortran_order": False, "shape": little.shape}
        )
        file = f"{base}+{key}.{checksum}.npy"
        self._write_parts(self.folder / file, header.getvalue(), little)
        return {
            "file": file,
            "dtype": little.dtype.str,
            "shape": list(little.shape),
            "offset": header.tell(),
            "checksum": checksum,
        }

    def _write_parts(self, path: Path, header: bytes, values: npt.NDArray[Any]) -> None:
        # Header and values apart: joined they would be a second copy of what may be a good part of the memory limit.
        temporary = f"{path}.{os.getpid()}{TEMPORARY_SUFFIX}"
        with disk_errors(path):
            try:
                with open(temporary, "wb") as file:
                    file.write(header)
                    if values.size:
                        file.write(values.reshape(-1).view(np.uint8).data)
                    if self.durable:
                        file.flush()
                        os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            if self.durable:
                sync_folder(self.folder)

    def _load_array(self, record: Mapping[str, Any]) -> npt.NDArray[Any] | None:
        # The NPY header is for people and other tools; the sidecar, which has its own checksum, tells what to read.
        shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
        try:
            with open(self.folder / record["file"], "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != record["offset"] + math.prod(shape) * dtype.itemsize:
                    return None
                array: npt.NDArray[Any] = np.empty(shape, dtype)
                file.seek(record["offset"])
                rest = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
                while rest and (count := file.readinto(rest)):
                    rest = rest[count:]
        except FileNotFoundError:
            return None
        if Digest().add(array).hexdigest() != record["checksum"]:
            return None
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _remove_arrays(self, base: str, keep: set[str]) -> None:
        for path in self.folder.glob(f"{base}+*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)


def _file_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a checkpoint")
    return name.replace("/", ".")


def _checksum(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
