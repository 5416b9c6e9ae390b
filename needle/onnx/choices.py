"""Attributes of which ONNX allows some values only, which neither its checker nor its inference compares."""

from __future__ import annotations

from typing import TypeAlias

import onnx

__all__ = ["require_choices"]

Choices: TypeAlias = dict[str, tuple[str | int, ...]]  # by the attribute's name

_PADDING: Choices = {"auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")}
_ORDER: Choices = {"mode": ("DCR", "CRD")}
_WINDOWS = ["AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"]
_TRANSFORMATIONS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_CHOICES: dict[str, Choices] = dict.fromkeys(_WINDOWS, _PADDING) | {
    "Attention": {"qk_matmul_output_mode": (0, 1, 2, 3)},
    "CausalConvWithState": {"activation": ("none", "silu", "swish")},
    "DepthToSpace": _ORDER,
    "GridSample": {
        "mode": ("linear", "bilinear", "nearest", "cubic", "bicubic"),
        "padding_mode": ("zeros", "border", "reflection"),
    },
    "Momentum": {"mode": ("standard", "nesterov")},
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "Resize": {
        "coordinate_transformation_mode": (*_TRANSFORMATIONS, "tf_crop_and_resize", "tf_half_pixel_for_nn"),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    },
    "RoiAlign": {"coordinate_transformation_mode": ("half_pixel", "output_half_pixel"), "mode": ("avg", "max")},
    "SpaceToDepth": _ORDER,
    "TensorScatter": {"mode": ("linear", "circular")},
    "Upsample": {"mode": ("nearest", "linear", "bilinear")},
}


def require_choices(node: onnx.NodeProto) -> None:
    """Require the attributes of a node of ONNX's own domains to have values that ONNX allows."""
    if not onnx.defs.has(node.op_type, node.domain):
        return
    for attribute in node.attribute:
        choices = _CHOICES.get(node.op_type, {}).get(attribute.name)
        if choices is None:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        if value not in choices:
            told = ", ".join(map(str, choices))
            raise ValueError(f"load: {attribute.name} of {node.op_type} must be one of {told}, but got {value!r}")
