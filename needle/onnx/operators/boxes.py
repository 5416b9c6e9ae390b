"""Operators on boxes of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from needle.autograd import Tensor
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("NonMaxSuppression", buffers=(2, 3, 4))
def non_max_suppression(
    node: Node, boxes: Tensor, scores: Tensor, count: Tensor | None = None, overlap: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The best boxes (N, boxes, 4) by scores (N, classes, boxes) that overlap no better one by more than a threshold.

    Returns (item, class, box) for each, (k, 3).
    """
    limit = 0 if count is None else int(count.item())
    threshold = 0.0 if overlap is None else overlap.item()
    values = scores.numpy()
    chosen = [
        (n, c, box)
        for n, item in enumerate(boxes.numpy())
        for c in range(values.shape[1])
        for box in _best(_corners(item, node["center_point_box"]), values[n, c], limit, threshold, least)
    ]
    places = np.array(chosen, "int64").reshape(-1, 3)
    return Tensor(places, device=boxes.device, requires_grad=False)


def _best(corners: Any, scores: Any, limit: int, threshold: float, least: Tensor | None) -> list[int]:
    """The boxes that stay, by falling score."""
    order = np.argsort(-scores, kind="stable")
    if least is not None:
        order = order[scores[order] > least.item()]
    stay: list[int] = []
    while order.size and len(stay) < limit:
        best, order = order[0], order[1:]
        stay.append(int(best))
        order = order[_overlap(corners[best], corners[order]) <= threshold]
    return stay


def _corners(boxes: Any, is_centered: int) -> Any:
    """Boxes as (least, least, most, most): from two corners, or from centre and size."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if is_centered:
        return np.concatenate([first - second / 2, first + second / 2], 1)
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], 1)


def _overlap(box: Any, boxes: Any) -> Any:
    """Intersection over union of a box with each of others; 0 for boxes without area."""
    inner = np.prod(np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0), 1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], 1) - inner
    return inner / np.where(union > 0, union, 1)
