"""Random nodes with windows, grids and regions, random normalisations, and what onnxruntime does otherwise.

Each function draws one: (operator, inputs, opset, number of outputs, attributes).
"""

import math

import numpy as np


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def ints(rng, low, high, count):
    return [int(n) for n in rng.integers(low, high, count)]


def chance(rng, share=0.5):
    return bool(rng.random() < share)


def one_of(rng, *values):
    return values[rng.integers(len(values))]


def window(rng, kernel, dilates=True, has_auto_pad=True):
    rank, attributes = len(kernel), {}
    if chance(rng, 0.6):
        attributes["strides"] = ints(rng, 1, 4, rank)
    if dilates and chance(rng, 0.4):
        attributes["dilations"] = ints(rng, 1, 3, rank)
    if has_auto_pad and chance(rng, 0.4):
        attributes["auto_pad"] = one_of(rng, "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    elif chance(rng, 0.6):
        attributes["pads"] = [int(rng.integers(0, k)) for k in (*kernel, *kernel)]
    return attributes


def sizes_of_output(size, kernel, attributes):
    rank = len(size)
    strides, dilations = (attributes.get(key, [1] * rank) for key in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * 2 * rank)
    sides = enumerate(zip(size, kernel, strides, dilations, strict=True))
    return [(n + pads[i] + pads[i + rank] - d * (k - 1) - 1) // s + 1 for i, (n, k, s, d) in sides]


def conv(rng):
    rank, groups = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    kernel, size = ints(rng, 1, 4, rank), ints(rng, 5, 9, rank)
    channels, out_channels = (groups * n for n in ints(rng, 1, 3, 2))
    inputs = [floats(rng, 2, channels, *size), floats(rng, out_channels, channels // groups, *kernel)]
    attributes = {"group": groups, **window(rng, kernel)}
    if chance(rng):
        attributes["kernel_shape"] = kernel
    return "Conv", [*inputs, floats(rng, out_channels)][: one_of(rng, 2, 3)], one_of(rng, 1, 11, 22), 1, attributes


def conv_transpose(rng):
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    kernel, size = ints(rng, 1, 4, rank), ints(rng, 2, 6, rank)
    channels, out_channels = (groups * n for n in ints(rng, 1, 3, 2))
    inputs = [floats(rng, 2, channels, *size), floats(rng, channels, out_channels // groups, *kernel)]
    attributes = {"group": groups, **window(rng, kernel)}
    strides, dilations = (attributes.get(key, [1] * rank) for key in ("strides", "dilations"))
    if chance(rng, 0.4):
        attributes["output_padding"] = [
            int(rng.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)
        ]
    if chance(rng, 0.3):
        sides = zip(strides, size, dilations, kernel, strict=True)
        full = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in sides]
        attributes["output_shape"] = [int(max(1, n + rng.integers(-3, 2))) for n in full]
        attributes.pop("pads", None)
    inputs = [*inputs, floats(rng, out_channels)][: one_of(rng, 2, 3)]
    return "ConvTranspose", inputs, one_of(rng, 1, 11, 22), 1, attributes


def pool(rng):
    name = one_of(rng, "MaxPool", "AveragePool", "LpPool")
    rank = int(rng.integers(1, 4))
    kernel, size = ints(rng, 1, 4, rank), ints(rng, 5, 9, rank)
    opset = one_of(rng, 2, 8, 10, 11, 12, 18, 19, 22)
    first = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[name]
    attributes = {"kernel_shape": kernel, **window(rng, kernel, dilates=opset >= first)}
    outputs, x = 1, floats(rng, 2, 2, *size)
    if opset >= (18 if name == "LpPool" else 10) and chance(rng):
        attributes["ceil_mode"] = 1
    if name == "AveragePool" and opset >= 7 and chance(rng):
        attributes["count_include_pad"] = 1
    if name == "LpPool":
        attributes["p"] = int(rng.integers(1, 5))
    if name == "MaxPool" and opset >= 8 and chance(rng):
        outputs, attributes["storage_order"] = 2, int(rng.integers(2))
    if name == "MaxPool" and opset >= 12 and chance(rng, 0.3):
        x = rng.integers(0, 9, x.shape).astype(one_of(rng, "int8", "uint8"))
    return name, [x], opset, outputs, attributes


def global_pool(rng):
    name = one_of(rng, "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    x = floats(rng, 2, 3, *ints(rng, 1, 6, int(rng.integers(1, 4))))
    return name, [x], 2, 1, {"p": int(rng.integers(1, 4))} if name == "GlobalLpPool" else {}


def max_unpool(rng):
    rank = int(rng.integers(1, 4))
    kernel, size, strides = ints(rng, 1, 4, rank), ints(rng, 1, 4, rank), ints(rng, 1, 3, rank)
    area = math.prod((n - 1) * s + k for n, s, k in zip(size, strides, kernel, strict=True))
    places = rng.permutation(2 * area + 99)[: 2 * math.prod(size)] % (2 * area)
    indices = np.unique(places, return_index=True)[1]
    x = floats(rng, 1, 2, *size)
    if len(indices) < places.size:  # of several at one place onnxruntime keeps any
        x[...] = 1
    attributes = {"kernel_shape": kernel, "strides": strides}
    return "MaxUnpool", [x, places.reshape(x.shape)], one_of(rng, 9, 11, 22), 1, attributes


def regions(rng):
    size, count, scale = ints(rng, 4, 10, 2), int(rng.integers(1, 5)), one_of(rng, 1.0, 0.5, 0.25)
    start = rng.uniform(-2, max(size) + 2, (count, 2)) / scale
    rois = np.concatenate([start, start + rng.uniform(-1, 8, (count, 2)) / scale], 1)
    x, image = floats(rng, 2, 3, *size), rng.integers(0, 2, count)
    if chance(rng, 0.4):
        rois = np.concatenate([image[:, None], rois], 1).astype(np.float32)
        return "MaxRoiPool", [x, rois], 1, 1, {"pooled_shape": ints(rng, 1, 5, 2), "spatial_scale": scale}
    height, width, ratio = ints(rng, 0, 4, 3)
    attributes = {"output_height": height + 1, "output_width": width + 1, "sampling_ratio": ratio}
    attributes |= {"spatial_scale": scale, "mode": one_of(rng, "avg", "max")}
    opset = one_of(rng, 10, 16)
    if opset > 10 and chance(rng):
        attributes["coordinate_transformation_mode"] = one_of(rng, "half_pixel", "output_half_pixel")
    return "RoiAlign", [x, rois.astype(np.float32), image], opset, 1, attributes


def resize(rng):
    opset = one_of(rng, 10, 11, 13, 18, 19)
    mode = one_of(rng, "nearest", "linear", *(["cubic"] if opset > 10 else []))
    rank = 2 if mode == "cubic" else int(rng.integers(1, 4))
    x = floats(rng, 1, 2, *ints(rng, 2, 7, rank))
    if mode == "nearest" and chance(rng, 0.2):
        x = rng.integers(0, 9, x.shape).astype(one_of(rng, "int32", "uint8"))
    scales = np.array([1, 1, *rng.choice([0.5, 0.6, 0.8, 1, 1.5, 2, 2.3, 3], rank)], np.float32)
    if opset == 10:
        return "Resize", [x, scales], opset, 1, {"mode": mode}
    rule = one_of(
        rng, "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
        *(["tf_half_pixel_for_nn"] if opset < 13 else []), *(["half_pixel_symmetric"] if opset >= 19 else []),
    )  # fmt: skip
    attributes = {"mode": mode, "coordinate_transformation_mode": rule, "extrapolation_value": 7.0}
    if mode == "nearest":
        attributes["nearest_mode"] = one_of(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": one_of(rng, -0.5, -0.75), "exclude_outside": int(rng.integers(2))}
    if opset >= 18 and mode != "nearest":
        attributes["antialias"] = int(rng.integers(2))
    start, end = rng.uniform(-0.1, 0.4, rank), rng.uniform(0.6, 1.1, rank)
    roi = np.array([0, 0, *start, 1, 1, *end], np.float32)
    if chance(rng):
        return "Resize", [x, roi, scales], opset, 1, attributes
    sizes = np.array([1, 2, *rng.integers(1, 10, rank)])
    if opset >= 18 and chance(rng):
        attributes |= {
            "keep_aspect_ratio_policy": one_of(rng, "not_larger", "not_smaller"),
            "axes": [*range(2, 2 + rank)],
        }
        roi, sizes = np.array([*start, *end], np.float32), sizes[2:]
    return "Resize", [x, roi, np.zeros(0, np.float32) if opset < 13 else None, sizes], opset, 1, attributes


def upsample(rng):
    x, attributes = floats(rng, 1, 2, *ints(rng, 2, 6, 2)), {"mode": one_of(rng, "nearest", "linear")}
    scales = np.array([1, 1, *rng.choice([1, 1.5, 2, 2.3, 3], 2)], np.float32)
    if chance(rng):
        return "Upsample", [x], 7, 1, {**attributes, "scales": [float(n) for n in scales]}
    return "Upsample", [x, scales], 9, 1, attributes


def pad(rng):
    opset, rank = one_of(rng, 2, 11, 13, 18, 19, 21, 25), int(rng.integers(1, 5))
    mode = one_of(rng, "constant", "reflect", "edge", *(["wrap"] if opset >= 19 else []))
    x, low = floats(rng, *ints(rng, 4, 7, rank)), one_of(rng, -1, 0)
    if opset == 2:
        return "Pad", [x], 2, 1, {"mode": mode, "pads": ints(rng, low, 3, 2 * rank), "value": 1.5}
    if opset >= 13 and chance(rng):
        x = rng.integers(0, 9, x.shape).astype(one_of(rng, "int32", "int64", "uint8", "int8", "bool"))
    value = np.array(1).astype(x.dtype) if mode == "constant" and chance(rng) else None
    if opset < 18 or chance(rng):
        inputs = [x, np.array(ints(rng, low, 3, 2 * rank)), value]
        return "Pad", inputs[: 2 if value is None else 3], opset, 1, {"mode": mode}
    axes = rng.permutation(rank)[: int(rng.integers(1, rank + 1))]
    axes = np.where(rng.random(axes.size) < 0.5, axes, axes - rank).astype(one_of(rng, "int32", "int64"))
    return "Pad", [x, np.array(ints(rng, low, 3, 2 * axes.size)), value, axes], opset, 1, {"mode": mode}


def center_crop_pad(rng):
    rank = int(rng.integers(1, 5))
    axes = [int(n) for n in rng.permutation(rank)[: int(rng.integers(1, rank + 1))]]
    inputs = [floats(rng, *ints(rng, 1, 7, rank)), np.array(ints(rng, 1, 8, len(axes)))]
    return "CenterCropPad", inputs, 18, 1, {"axes": axes}


def grid(rng):
    rank = int(rng.integers(2, 4))
    if chance(rng, 0.2):
        size = np.array([2, 3, *rng.integers(1, 6, rank)])
        return "AffineGrid", [floats(rng, 2, rank, rank + 1), size], 20, 1, {"align_corners": int(rng.integers(2))}
    opset = 16 if rank == 2 and chance(rng) else one_of(rng, 20, 22)
    modes = ("nearest", "bilinear", "bicubic") if opset == 16 else ("nearest", "linear", "cubic")
    points = rng.uniform(-1.8, 1.8, (2, *ints(rng, 1, 5, rank), rank)).astype(np.float32)
    attributes = {"mode": one_of(rng, *modes[: 5 - rank]), "align_corners": int(rng.integers(2))}
    attributes["padding_mode"] = one_of(rng, "zeros", "border", "reflection")
    return "GridSample", [floats(rng, 2, 3, *ints(rng, 1, 6, rank)), points], opset, 1, attributes


def blocks(rng):
    side, opset = int(rng.integers(1, 4)), one_of(rng, 11, 13)
    if chance(rng):
        return "SpaceToDepth", [floats(rng, 2, 2, 2 * side, 3 * side)], opset, 1, {"blocksize": side}
    attributes = {"blocksize": side, "mode": one_of(rng, "DCR", "CRD")}
    return "DepthToSpace", [floats(rng, 2, 2 * side * side, 2, 3)], opset, 1, attributes


def batch_norm(rng):
    channels, opset = int(rng.integers(1, 4)), one_of(rng, 7, 9, 14, 15)
    x = floats(rng, 3, channels, *ints(rng, 1, 5, int(rng.integers(0, 4))))
    inputs = [x, *(floats(rng, channels) for _ in range(3)), np.abs(floats(rng, channels)) + 0.5]
    if opset >= 14 and chance(rng):
        return "BatchNormalization", inputs, opset, 3, {"epsilon": 1e-3, "training_mode": 1, "momentum": 0.7}
    return "BatchNormalization", inputs, opset, 1, {"epsilon": 1e-3}


def group_norm(rng):
    groups = int(rng.integers(1, 4))
    channels = groups * int(rng.integers(1, 4))
    x = floats(rng, 2, channels, *ints(rng, 1, 5, int(rng.integers(1, 4))))
    if chance(rng):
        return "InstanceNormalization", [x, floats(rng, channels), floats(rng, channels)], 6, 1, {"epsilon": 1e-3}
    scale, bias = (floats(rng, channels) for _ in range(2))
    return "GroupNormalization", [x, scale, bias], 21, 1, {"num_groups": groups, "epsilon": 1e-3}


def row_norm(rng):
    rank = int(rng.integers(1, 5))
    x, axis = floats(rng, *ints(rng, 2, 5, rank)), int(rng.integers(-rank, rank))
    scale, bias = (floats(rng, *x.shape[axis % rank :]) for _ in range(2))
    attributes = {"axis": axis, "epsilon": 1e-3}
    if chance(rng):
        return "RMSNormalization", [x, scale], 23, 1, attributes
    return "LayerNormalization", [x, scale, bias][: one_of(rng, 2, 3)], 17, one_of(rng, 1, 3), attributes


def other_norm(rng):
    x, name = floats(rng, 2, 5, *ints(rng, 2, 5, 2)), one_of(rng, "LRN", "LpNormalization", "MeanVarianceNormalization")
    if name == "LRN":
        return name, [x], 13, 1, {"size": one_of(rng, 1, 3, 5), "alpha": 0.5, "beta": 0.6, "bias": 1.5}
    if name == "LpNormalization":
        x[..., 0] *= rng.integers(0, 2)
        return name, [x], one_of(rng, 1, 22), 1, {"axis": int(rng.integers(-4, 4)), "p": int(rng.integers(1, 3))}
    return name, [x], 13, 1, {"axes": sorted(int(n) for n in rng.permutation(4)[: int(rng.integers(1, 4))])}


def columns(rng):
    rank = int(rng.integers(1, 4))
    kernel, size = ints(rng, 1, 4, rank), ints(rng, 5, 8, rank)
    attributes = window(rng, kernel, has_auto_pad=False)
    x = floats(rng, 2, 2 * math.prod(kernel), math.prod(sizes_of_output(size, kernel, attributes)))
    return "Col2Im", [x, np.array(size), np.array(kernel)], 18, 1, attributes


def deform_conv(rng):
    groups, offset_groups, outputs = ints(rng, 1, 3, 3)
    kernel, size = ints(rng, 1, 4, 2), ints(rng, 5, 8, 2)
    attributes = window(rng, kernel, has_auto_pad=False) | {"group": groups, "offset_group": offset_groups}
    channels, out_channels, output = 2 * groups, groups * outputs, sizes_of_output(size, kernel, attributes)
    taps = offset_groups * math.prod(kernel)
    inputs = [floats(rng, 2, channels, *size), floats(rng, out_channels, 2, *kernel), floats(rng, 2, 2 * taps, *output)]
    others = [floats(rng, out_channels) if chance(rng) else None, floats(rng, 2, taps, *output)]
    return "DeformConv", [*inputs, *others][: one_of(rng, 3, 5)], one_of(rng, 19, 22), 1, attributes


DRAWN = [
    conv, conv_transpose, pool, global_pool, max_unpool, regions, resize, upsample, pad, center_crop_pad, grid, blocks,
    batch_norm, group_norm, row_norm, other_norm, columns, deform_conv,
]  # fmt: skip


def departs(name, inputs, opset, attributes):
    """Whether onnxruntime 1.32 computes a node otherwise than the standard says; docs/onnx.md lists these."""
    shape, auto_pad = inputs[0].shape, attributes.get("auto_pad", "NOTSET")
    rank = len(shape) - 2
    strides, dilations = (attributes.get(key, [1] * rank) for key in ("strides", "dilations"))
    if name == "ConvTranspose":  # SAME gives fewer than n·s outputs if kernels leave gaps
        sides = zip(strides, dilations, inputs[1].shape[2:], strict=True)
        return auto_pad.startswith("SAME") and any(d * (k - 1) + 1 < s for s, d, k in sides)
    if name in ("MaxPool", "AveragePool", "LpPool"):  # VALID heeds ceil_mode, the padding of SAME no dilation
        rounds_up = auto_pad == "VALID" and "ceil_mode" in attributes
        return rounds_up or (auto_pad.startswith("SAME") and set(dilations) != {1})
    if name == "Resize":
        return _resizes_otherwise(shape, inputs, opset, attributes)
    if name == "AffineGrid":  # an axis of size 1 lies at 1
        return bool(attributes["align_corners"]) and 1 in inputs[1][2:]
    return name == "Col2Im" and len(inputs[1]) != 2 and set(attributes.get("dilations", [1])) != {1}  # ignores them


def _resizes_otherwise(shape, inputs, opset, attributes):
    scales = inputs[1 if opset == 10 else 2]
    if opset == 10:  # copies where the sizes stay, whatever the scales are
        return any(int(n * s) == n and s != 1 for n, s in zip(shape, scales, strict=True))
    rule, by_scales = attributes["coordinate_transformation_mode"], scales is not None and scales.size
    if rule == "align_corners":  # takes rounded sizes
        return by_scales and any(n * s % 1 for n, s in zip(shape, scales, strict=True))
    rank = len(shape) - 2
    factors = scales[-rank:] if by_scales else inputs[3][-rank:] / shape[-rank:]
    if policy := attributes.get("keep_aspect_ratio_policy"):
        factors = [min(factors) if policy == "not_larger" else max(factors)]
    return rule == "tf_crop_and_resize" and 1 in list(factors)  # ignores the region of an axis that is not scaled
