"""What NumPy has and CuPy 14.2 lacks or refuses, among what needle could use: the commonest mistakes.

The whole of CuPy's signatures is checked by CuPy itself, in `make gpu-check`; there, a test holds this list against it.
"""

from __future__ import annotations

from collections.abc import Iterable

FUNCTIONS = {
    "asmatrix", "block", "bmat", "einsum_path", "errstate", "frompyfunc", "fromregex", "geomspace", "getbufsize",
    "geterr", "geterrcall", "histogram_bin_edges", "insert", "isnat", "matvec", "nanpercentile", "nanquantile",
    "ndenumerate", "nditer", "polyder", "polydiv", "polyint", "setbufsize", "seterr", "seterrcall", "spacing",
    "unstack", "vecdot", "vecmat",
    "bytes_", "character", "clongdouble", "datetime64", "flexible", "longdouble", "matrix", "memmap", "object_",
    "recarray", "record", "str_", "timedelta64", "void",
    "linalg.diagonal", "linalg.matrix_norm", "linalg.multi_dot", "linalg.outer", "linalg.svdvals", "linalg.tensordot",
    "linalg.trace", "linalg.vecdot", "linalg.vector_norm",
}  # fmt: skip
METHODS = {"ctypes", "getfield", "resize", "setfield", "setflags", "to_device"}

# Keyword -> the functions without it. Arrays' methods of that name lack it, too, except that `clip` takes min and max.
KEYWORDS = {
    "correction": "nanstd nanvar std var",
    "device": "arange asarray astype empty empty_like eye full full_like linspace ones ones_like zeros zeros_like",
    "initial": "amax amin max min nanmax nanmin nanprod nansum prod sum",
    "keepdims": "count_nonzero",
    "kind": "argpartition isin partition",
    "like": "arange array asarray ascontiguousarray empty eye full identity ones tri zeros",
    "max": "clip",
    "min": "clip",
    "mode": "take",
    "order": "argpartition argsort clip partition sort",
    "out": "fft.fft fft.ifft",
    "casting": "clip",
    "sorted": "unique",
    "stable": "argsort sort",
    "subok": "as_strided broadcast_arrays broadcast_to copy",
    "weights": "percentile quantile",
    "where": "all amax amin any clip max mean min nanmax nanmean nanmin nanprod nanstd nansum nanvar prod std sum var",
    "writeable": "as_strided",
}
UFUNC_KEYWORDS = {"casting", "dtype", "out"}  # all that CuPy's ufuncs take


def refuse(name: str, keywords: Iterable[str], *, method: bool = False) -> None:
    """Raise CuPy's error if its function or method lacks one of the keywords."""
    for keyword in keywords:
        lacking = name in KEYWORDS.get(keyword, "").split()
        if lacking and not (method and keyword in ("min", "max")):
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")
