"""Arrays joined on GPUs: one launch for up to `MOST` arrays of float32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from needle.backend import device_of
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, replaces
from needle.kernels.join import join
from needle.kernels.layout import Array

MOST = 100  # as in the source
ROW = np.dtype([("values", "u8"), ("start", "i4")], align=True)
ROWS = np.dtype([("each", ROW, MOST), *((name, "i4") for name in ("count", "start", "end"))], align=True)

source = Source("join.cu")


@replaces(join)
def join_at_once(first: Array, arrays: Sequence[Array], out: Array) -> None:
    if not fits(*arrays, out) or not out.flags.c_contiguous:
        generic(join)(first, arrays, out)
        return
    device = device_of(first)
    rows = [device.xp.ascontiguousarray(array) for array in arrays]
    starts = [*accumulate((row.size for row in rows), initial=0)]
    for begin in range(0, len(rows), MOST):
        part = rows[begin : begin + MOST]
        count, start, end = len(part), starts[begin], starts[begin + len(part)]
        struct = np.zeros(1, ROWS)
        struct["each"][0, :count]["values"] = [device.address(row) for row in part]
        struct["each"][0, :count]["start"] = starts[begin : begin + count]
        struct["count"], struct["start"], struct["end"] = count, start, end
        source.launch(first, "join", blocks(end - start), (THREADS,), struct[0], out)
