"""Sums of rows by cluster that stay on the device from block to block."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.fixed_point import FixedPoint
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Int64
from streamcurate.kernels.sums_partial import ClusterSums

_SHARE = 1 / 4  # of the memory that is free, for one accumulator


class DeviceSums(ClusterSums):
    """:class:`ClusterSums` whose limbs lie on the device until someone reads them.

    A block's limbs are as large as the block or larger, and the host would take longer to add them than the device to
    label the rows: combining two of these adds there. Where the sums over all clusters would not fit, and when pickled,
    they become plain ones.
    """

    def __init__(
        self,
        device: Device,
        fixed_point: FixedPoint,
        clusters: int,
        ids: Int64 | None,
        limbs: DeviceArray,
        counts: Int64,
    ) -> None:
        self.__dict__.update(fixed_point=fixed_point, clusters=clusters, ids=ids, counts=counts)
        self.__dict__.update(_device=device, _resident=limbs, _dims=int(limbs.shape[2]), _downloaded=None)

    @property
    def limbs(self) -> Int64:
        """The limbs on the host."""
        if self.__dict__["_downloaded"] is None:
            device: Device = self.__dict__["_device"]
            with device.session():
                self.__dict__["_downloaded"] = device.download(self.__dict__["_resident"])
        limbs: Int64 = self.__dict__["_downloaded"]
        return limbs

    @property
    def nbytes(self) -> int:
        """Bytes held on the host: the counts."""
        return int(self.counts.nbytes) + (0 if self.ids is None else int(self.ids.nbytes))

    def combine(self, other: ClusterSums) -> ClusterSums:
        """The sums of both, on the device where both are there and all clusters fit."""
        if not isinstance(other, DeviceSums):
            return self.plain().combine(other)
        if (self.fixed_point, self.clusters, self.__dict__["_dims"]) != (
            other.fixed_point, other.clusters, other.__dict__["_dims"],
        ):  # fmt: skip
            raise ValueError("sums of different layouts, numbers of clusters or dims cannot be combined")
        if self.ids is None:
            self._add(other)
            return self
        if other.ids is None:
            other._add(self)
            return other
        total = self._accumulator()
        if total is None:
            return self.plain().combine(other.plain())
        total._add(self)
        total._add(other)
        return total

    def dense(self) -> ClusterSums:
        """These sums over all clusters, on the host."""
        return self.plain().dense()

    def plain(self) -> ClusterSums:
        """The same sums on the host."""
        return ClusterSums(self.fixed_point, self.clusters, self.ids, self.limbs, self.counts)

    def __reduce__(self) -> tuple[Any, ...]:
        return ClusterSums, (self.fixed_point, self.clusters, self.ids, self.limbs, self.counts)

    def _accumulator(self) -> DeviceSums | None:
        """Sums of no rows over all clusters; None where they would not fit."""
        device: Device = self.__dict__["_device"]
        shape = (self.fixed_point.limbs, self.clusters, self.__dict__["_dims"])
        with device.session():
            if 8 * shape[0] * shape[1] * shape[2] > _SHARE * device.free_bytes():
                return None
            try:
                limbs = device.zeros(shape, np.int64)
            except InputError:
                return None
        return DeviceSums(device, self.fixed_point, self.clusters, None, limbs, np.zeros(self.clusters, dtype=np.int64))

    def _add(self, part: DeviceSums) -> None:
        device: Device = self.__dict__["_device"]
        pieces, touched, dims = (int(size) for size in part.__dict__["_resident"].shape)
        with device.session():
            ids = device.upload(np.arange(touched, dtype=np.int64) if part.ids is None else part.ids)
            device.launch(
                "add_limbs", pieces * touched * dims, part.__dict__["_resident"], ids, pieces, touched, self.clusters,
                dims, self.__dict__["_resident"],
            )  # fmt: skip
        if part.ids is None:
            self.counts[...] += part.counts
        else:
            self.counts[part.ids] += part.counts
        self.__dict__["_downloaded"] = None
