"""Change thresholds of needle.tuning during a test."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from needle import tuning
from needle.kernels.conv import dispatch, gemm, im2col, one_image

CACHES = (  # of results that depend on a threshold
    dispatch._plan, dispatch._gradients_plan, gemm.split_count, im2col.columns_for, one_image.image_for,
)  # fmt: skip


@contextmanager
def thresholds(**values):
    """Change constants of `tuning` until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(tuning, name, value)
        clear_caches()
        yield
    clear_caches()


def clear_caches():
    for cache in CACHES:
        cache.cache_clear()
