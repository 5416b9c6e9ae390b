"""Linear models and scalings of ai.onnx.ml, in which converters write those of scikit-learn, computed in float32.

Their coefficients are attributes, so nothing of them is trained. Labels are integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from needle import ops
from needle.autograd import Tensor
from needle.onnx.registry import Node, operator
from needle.ops.statistics import vector_norm

__all__: list[str] = []

DOMAIN = "ai.onnx.ml"
TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "NONE": lambda y: y,
    "LOGISTIC": ops.sigmoid,
    "SOFTMAX": lambda y: ops.softmax(y, 1),
}


@operator("LinearRegressor", domain=DOMAIN)
def linear_regressor(node: Node, x: Tensor) -> Tensor:
    """(N, C) -> (N, targets)."""
    return _scores(node, x, node["targets"])


@operator("LinearClassifier", domain=DOMAIN)
def linear_classifier(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """The labels of the largest scores (N,), and the scores (N, labels)."""
    labels = node["classlabels_ints"]
    if not labels or len(node["coefficients"]) != len(labels) * x.shape[1]:
        raise ValueError(f"{node}: coefficients must be given for each of classlabels_ints, but those are {labels}")
    scores = _scores(node, x, len(labels))
    return _row(x, labels, "int64")[ops.argmax(scores, 1)], scores


@operator("Scaler", domain=DOMAIN)
def scaler(node: Node, x: Tensor) -> Tensor:
    """(x - offset) · scale."""
    return (x.astype("float32") - _row(x, node["offset"] or [0.0])) * _row(x, node["scale"] or [1.0])


@operator("Normalizer", domain=DOMAIN)
def normalizer(node: Node, x: Tensor) -> Tensor:
    """Rows by their largest element, their sum of absolute values or their length, unless that is 0."""
    x = x.astype("float32")
    if node["norm"] == "MAX":
        size = ops.max(x, -1, keepdims=True)
    else:
        size = vector_norm(x, 1 if node["norm"] == "L1" else 2, (x.ndim - 1,))
    return x / ops.where(ops.equal(size, 0), 1.0, size)


def _scores(node: Node, x: Tensor, count: int) -> Tensor:
    """x W + b, transformed; the coefficients hold one row of W transposed after another."""
    if node["post_transform"] not in TRANSFORMS:
        raise ValueError(
            f"{node}: post_transform must be one of {', '.join(TRANSFORMS)}, but got {node['post_transform']!r}"
        )
    weight = ops.reshape(_row(x, node["coefficients"]), (count, -1))
    y = x.astype("float32") @ ops.transpose(weight)
    if node["intercepts"]:
        y = y + _row(x, node["intercepts"])
    return TRANSFORMS[node["post_transform"]](y)


def _row(x: Tensor, values: Sequence[float], dtype: str = "float32") -> Tensor:
    return Tensor(values, device=x.device, dtype=dtype, requires_grad=False)
