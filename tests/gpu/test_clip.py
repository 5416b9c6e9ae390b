"""Gradients clipped by their norm on a GPU: two launches for all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import kernels
from needle.kernels.gpu.clip import MOST
from needle.nn.utils import clip_grad_norm_
from tests.gpu.faults import Fault
from tests.gpu.kernels import missing, running
from tests.gpu.shim_device import SHIM

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")
SHAPES = [(3, 4), (), (5000,), (4, 3, 2, 2), (1, 1), (4096,)]


def values(shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_clip_norm(max_norm, run):
    arrays = values()
    norm, expected = kernels.clip_norm(arrays[0], arrays, max_norm, 2.0)
    placed = [SHIM.array(array) for array in arrays]
    placed[3] = SHIM.array(np.ascontiguousarray(arrays[3].transpose(1, 2, 3, 0))).transpose(3, 0, 1, 2)
    length, clipped = kernels.clip_norm(placed[0], placed, max_norm, 2.0)
    np.testing.assert_allclose(length, norm, rtol=1e-6)
    for array, other, before, start in zip(clipped, expected, placed, arrays, strict=True):
        np.testing.assert_allclose(array, other, rtol=2e-6)
        np.testing.assert_array_equal(before, start)
        assert array.strides == before.strides


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_infinities_and_nan_go_where_the_cpu_sends_them(value, run):
    arrays = values()
    arrays[2][7] = value
    with np.errstate(all="ignore"):
        norm, expected = kernels.clip_norm(arrays[0], arrays, 1.0, 2.0)
    length, clipped = kernels.clip_norm(SHIM.array(arrays[0]), [SHIM.array(array) for array in arrays], 1.0, 2.0)
    np.testing.assert_array_equal(length, norm)
    for array, other in zip(clipped, expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(("count", "p", "expected"), [
    (3, 2.0, ["squares", "clip"]), (MOST + 1, 2.0, ["squares"] * 2 + ["clip"] * 2), (3, 1.0, []), (3, np.inf, []),
])  # fmt: skip
def test_the_gradients_of_parameters(count, p, expected, launches):
    norms = []
    for device in (ndl.cpu(), SHIM):
        params = [ndl.ones(3, device=device) for _ in range(count)]
        for parameter, grad in zip(params, values([(3,)] * count), strict=True):
            parameter.grad = ndl.Tensor(grad, device=device)
        norms.append(clip_grad_norm_(params, 0.5, p))
        norms.append(clip_grad_norm_(params, 1e9, p))
    np.testing.assert_allclose(norms[2].numpy(), norms[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(norms[3].numpy(), norms[1].numpy(), rtol=1e-5)
    assert [name for name in launches if name in ("squares", "clip")] == expected * 2


def test_arrays_with_gaps_and_of_equal_elements_take_the_generic_kernel(launches):
    with_gaps = SHIM.array(np.arange(24, dtype="float32").reshape(4, 6))[:, ::2]
    for array in (with_gaps, np.broadcast_to(SHIM.array(np.float32(3)), (4, 3))):
        norm, (clipped,) = kernels.clip_norm(array, [array], 1.0, 2.0)
        np.testing.assert_allclose(norm, np.linalg.norm(array), rtol=1e-6)
        np.testing.assert_allclose(clipped, array / (norm + 1e-6), rtol=1e-6)
    assert not {"squares", "clip"} & {*launches}


def test_clipping_moves_whole_sectors():
    with running(checked=True, measure=True) as run:
        kernels.clip_norm(array := SHIM.array(np.ones(8192, "float32")), [array], 1.0, 2.0)
    assert run.used("squares", write=False) >= 0.95
    assert run.used("clip", write=True) >= 0.95


FAULTS = [
    Fault("clip.cu", "NaN lost", "if (scale > 1) scale = 1;", "scale = fminf(scale, 1);",
          partial(test_infinities_and_nan_go_where_the_cpu_sends_them, np.nan)),
    Fault("clip.cu", "sums left out", "sum += sums[i];", "sum += sums[0];",
          partial(test_clip_norm, 0.5)),
]  # fmt: skip
