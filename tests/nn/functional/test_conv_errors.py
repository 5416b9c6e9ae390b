"""The exact error messages of the convolution functions, raised before any work on arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import needle as ndl
from needle import kernels
from needle.nn import functional

HINT = '; .astype("float32") converts'  # where float32 meets float64


@dataclass(frozen=True)
class Misuse:
    """A call with ones of these shapes (other values are passed as they are), and the error that it must raise.

    `torch_takes_it` says why torch accepts the same call, if it does.
    """

    what: str
    op: str
    arguments: tuple[Any, ...]
    message: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: type = ValueError
    dtypes: tuple[str, ...] = ("float64",) * 3
    torch_takes_it: str = ""


def options_of(op, rank, name):
    """Misuses of an option that takes one integer per axis, or one for all."""
    least = 0 if "padding" in name else 1
    x, w = (2, 4, *(5,) * rank), (4, 4, *(3,) * rank)
    many = (1,) * (rank + 1)

    def misuse(what, value, rule, kind=ValueError):
        return Misuse(f"{name} {what}", op, (x, w), f"{op}: {name} must be {rule}", {name: value}, kind)

    yield misuse("too small", least - 1, f"at least {least}, but got {least - 1}")
    last_too_small = (1,) * (rank - 1) + (least - 1,)
    yield misuse("too small on the last axis", last_too_small, f"at least {least}, but got {least - 1}")
    yield misuse("of too many axes", many, f"one integer or {rank}, but got {rank + 1}: {many}")
    yield misuse("of no axes", (), f"one integer or {rank}, but got 0: ()")
    for what, value in {"a fraction": 1.5, "None": None, "a bool": True}.items():
        yield misuse(what, value, f"an integer, but got {value!r}", TypeError)
    yield misuse("with a fraction in it", (1,) * (rank - 1) + (0.5,), "an integer, but got 0.5", TypeError)


def of_both(op, rank):
    """Misuses that a convolution and its transpose share."""
    transposed = "transpose" in op
    x, w, size, kernel = (2, 4, *(5,) * rank), (4, 4, *(3,) * rank), (5,) * rank, (3,) * rank
    names = "x (N, C, *P) and weight (C, O/G, *K)" if transposed else "x (N, C, *S) and weight (O, C/G, *K)"

    for name in ("stride", "padding", "dilation"):
        yield from options_of(op, rank, name)
    for shape in ((2, *size)[1:], (1, 2, 4, *size)):
        rule = f"x must have {rank + 2} axes, (N, C, *S), or {rank + 1}, (C, *S), but got shape {shape}"
        yield Misuse(f"x of {len(shape)} axes", op, (shape, w), f"{op}: {rule}")
    for shape in ((4, *kernel), (4, 4, *kernel, 3), (4, 4)):
        rule = f"{names} must agree in rank, but got {x} and {shape}"
        yield Misuse(f"weight of {len(shape)} axes", op, (x, shape), f"{op}: {rule}")
    for shape in ((3,), (4, 1), (), (1,)):
        rule = f"bias must have the shape (4,) of out-channels, but got {shape}"
        yield Misuse(f"bias of shape {shape}", op, (x, w, shape), f"{op}: {rule}")
    empty = (4, 4, *kernel[1:], 0)
    yield Misuse("empty kernel", op, (x, empty), f"{op}: kernel sizes must be at least 1, but got {empty[2:]}")
    for padding in (0, 2):
        nothing = (2, 4, *size[1:], 0)
        rule = f"{op}: the sizes of x must be at least 1, but got {nothing}"
        yield Misuse(f"empty x padded by {padding}", op, (nothing, w), rule, {"padding": padding})
    yield Misuse("groups below 1", op, (x, w), f"{op}: groups must be at least 1, but got 0", {"groups": 0})
    yield Misuse("groups below 0", op, (x, w, (4,)), f"{op}: groups must be at least 1, but got -1", {"groups": -1})
    rule = f"{op}: groups must be an integer, but got 1.0"
    yield Misuse("groups a fraction", op, (x, w), rule, {"groups": 1.0}, TypeError)
    rule = f"{op}: groups must be an integer, but got (1, 2)"
    yield Misuse("groups by axis", op, (x, w), rule, {"groups": (1, 2)}, TypeError)

    sides = ((1, 1),) * (rank - 1)
    for what, value, kind, rule in (
        ("negative on one side", (*sides, (1, -1)), ValueError, "at least 0, but got -1"),
        ("with a fraction on one side", (*sides, (1, 0.5)), TypeError, "an integer, but got 0.5"),
    ):
        yield Misuse(f"padding {what}", op, (x, w), f"{op}: padding must be {rule}", {"padding": value}, kind)
    for what, value in (
        ("of three sides", (*sides, (1, 1, 1))),
        ("of one side", (*sides, (1,))),
        ("by sides of too many axes", (*sides, (1, 1), (1, 1))),
    ):
        rule = f"({rank}, 2), a pair (before, after) for each axis, but got {value}"
        rule = f"{op}: padding in pairs must have the shape {rule}"
        yield Misuse(f"padding {what}", op, (x, w), rule, {"padding": value})
    if rank > 1:
        rule = f"{op}: padding must be an integer, but got (1, 1)"
        yield Misuse("padding half by sides", op, (x, w), rule, {"padding": (*sides, 1)}, TypeError)

    for dtype in ("int64", "bool"):
        rule = f"{op}: x and weight must have one floating dtype, but got {dtype} and {dtype}"
        takes = "torch convolves integers" if dtype != "bool" else ""
        yield Misuse(f"of {dtype}", op, (x, w), rule, {}, TypeError, (dtype, dtype), takes)
    rule = f"{op}: x and weight must have one floating dtype, but got float32 and float64" + HINT
    yield Misuse("of two dtypes", op, (x, w), rule, {}, TypeError, ("float32", "float64"))
    for dtype in ("float32", "int64"):
        rule = f"{op}: x and weight and bias must have one floating dtype, but got float64 and float64 and {dtype}"
        rule += HINT if dtype == "float32" else ""
        takes = "torch adds such a bias to a transpose of one or two axes" if transposed and rank < 3 else ""
        dtypes = ("float64", "float64", dtype)
        yield Misuse(f"with a bias of {dtype}", op, (x, w, (4,)), rule, {}, TypeError, dtypes, takes)
    for value in (None, "text"):
        rule = f"{op}: operands must be tensors, arrays, rectangular lists or numbers, but got {type(value).__name__}"
        yield Misuse(f"x {value}", op, (value, w), rule, {}, TypeError)
        yield Misuse(f"weight {value}", op, (x, value), rule, {}, TypeError)
    rule = f"{op}: operands must be tensors, arrays, rectangular lists or numbers, but got str"
    yield Misuse("bias a text", op, (x, w, "text"), rule, {}, TypeError)


def of_convolution(op, rank):
    x, w, size, kernel = (2, 4, *(5,) * rank), (4, 4, *(3,) * rank), (5,) * rank, (3,) * rank
    for channels, groups, reads in ((3, 1, 3), (4, 2, 4), (2, 1, 2), (8, 1, 8)):
        shape = (4, channels, *kernel)
        rule = f"weight {shape} reads {reads} channels per group x groups={groups}, but x {x} has 4 channels"
        yield Misuse(
            f"weight of {channels} channels, {groups} groups", op, (x, shape), f"{op}: {rule}", {"groups": groups}
        )
    rule = f"{op}: groups must divide the 3 out-channels of weight, but got 2"
    yield Misuse("groups that do not divide", op, (x, (3, 2, *kernel)), rule, {"groups": 2})
    for what, shape, options in (
        ("kernel too large", (4, 4, *kernel[1:], 6), {}),
        ("kernel too large for the padding", (4, 4, *kernel[1:], 8), {"padding": 1}),
        ("extent too large", w, {"dilation": 3}),
    ):
        d, p = options.get("dilation", 1), options.get("padding", 0)
        extent, padded = tuple(d * (k - 1) + 1 for k in shape[2:]), tuple(n + 2 * p for n in size)
        rule = (
            f"the kernel must fit into the padded input, but its extent is {extent} "
            f"and the padded size of x {x} is {padded}"
        )
        yield Misuse(what, op, (x, shape), f"{op}: {rule}", options)
    rule = f"{op}: padding must be one of 'valid', 'same', but got 'full'"
    yield Misuse("another padding by name", op, (x, w), rule, {"padding": "full"})
    for stride in (2, (1,) * (rank - 1) + (3,)):
        rule = (
            f'{op}: padding="same" needs stride 1, but got stride={stride}; functional.same_padding computes the '
            "padding for ceil(size / stride) outputs"
        )
        yield Misuse(f"same padding with stride {stride}", op, (x, w), rule, {"padding": "same", "stride": stride})


def of_transpose(op, rank):
    x, w, kernel = (2, 4, *(5,) * rank), (4, 4, *(3,) * rank), (3,) * rank
    yield from options_of(op, rank, "output_padding")
    for channels in (3, 8):
        shape = (channels, 4, *kernel)
        rule = f"{op}: weight {shape} reads {channels} channels, but x {x} has 4"
        yield Misuse(f"weight of {channels} channels", op, (x, shape), rule)
    rule = f"{op}: groups must divide the 4 in-channels of weight, but got 3"
    yield Misuse("groups that do not divide", op, (x, w), rule, {"groups": 3})
    rule = f"{op}: bias must have the shape (8,) of out-channels, but got (4,)"
    yield Misuse("bias for one group", op, (x, w, (4,)), rule, {"groups": 2})
    ones = (1,) * rank
    for s, d, more in ((1, 1, 1), (2, 1, 2), (2, 3, 3)):
        stride, dilation, extra = (s, *ones[1:]), (d, *ones[1:]), (more, *(0,) * (rank - 1))
        rule = (
            f"{op}: output_padding must be less than the larger of stride and dilation, but got {extra} for "
            f"stride {stride} and dilation {dilation}"
        )
        options = {"stride": stride, "dilation": dilation, "output_padding": extra}
        yield Misuse(f"output padding {more} of stride {s} and dilation {d}", op, (x, w), rule, options)
    for name in ("same", "valid"):
        rule = f"{op}: padding must be an integer, but got {name!r}"
        yield Misuse(f"padding {name}", op, (x, w), rule, {"padding": name}, TypeError)
    small, size = (2, 4, *ones), (3,) * rank
    for p, options in ((2, {}), (3, {"stride": 3, "output_padding": 2})):
        sizes = tuple(n - 2 * p + options.get("output_padding", 0) for n in size)
        rule = f"{op}: sizes of the output must be at least 1, but x {small} and this window give {sizes}"
        yield Misuse(f"all cut off by padding {p}", op, (small, w), rule, {"padding": p} | options)


def of_unfold():
    x, arguments = (2, 3, 5, 5), {"kernel_size": 2}

    def misuse(what, x, rule, options=arguments, **more):
        return Misuse(what, "unfold", (x,), f"unfold: {rule}", options, **more)

    for shape in ((5,), (5, 5), (2, 3, 5, 5, 5)):
        rule = f"x must have 4 axes, (N, C, *S), or 3, (C, *S), but got shape {shape}"
        yield misuse(f"x of shape {shape}", shape, rule)
    for shape in (x, ()):
        rule = f"x must have 3 axes, (N, C, *S), or 2, (C, *S), but got shape {shape}"
        yield misuse(f"kernel of one axis, x of {len(shape)}", shape, rule, {"kernel_size": (2,)})
    for what, options, extent, padded in (
        ("kernel too large", {"kernel_size": (2, 6)}, (2, 6), (5, 5)),
        ("extent too large", {"kernel_size": 3, "padding": 1, "dilation": 4}, (9, 9), (7, 7)),
    ):
        rule = (
            f"the kernel must fit into the padded input, but its extent is {extent} "
            f"and the padded size of x {x} is {padded}"
        )
        yield misuse(what, x, rule, options)
    for padding in (0, 1):
        rule = "the sizes of x must be at least 1, but got (2, 3, 0, 5)"
        yield misuse(f"empty x padded by {padding}", (2, 3, 0, 5), rule, arguments | {"padding": padding})


def of_fold():
    x, arguments = (2, 12, 16), {"output_size": (5, 4), "kernel_size": (2, 1)}

    def misuse(what, x, rule, options=arguments):
        return Misuse(what, "fold", (x,), f"fold: {rule}", options)

    for shape in ((12,), (1, 2, 12, 16)):
        rule = f"x must have 3 axes, (N, C·K, P), or 2, (C·K, P), but got shape {shape}"
        yield misuse(f"x of shape {shape}", shape, rule)
    for shape in ((2, 13, 16), (2, 12, 15), (2, 12, 20), (2, 12, 0)):
        rule = f"x must be (N, C·2, 4 x 4) for output_size (5, 4), but got {shape}"
        yield misuse(f"x of shape {shape}", shape, rule)
    rule = "x must be (N, C·2, 4 x 4) for output_size (5, 4), but got (1, 13, 16)"
    yield misuse("x of an unbatched shape", (13, 16), rule)
    rule = (
        "the kernel must fit into the padded output, but its extent is (6, 6) "
        "and the padded output_size (3, 5) is (5, 7)"
    )
    yield misuse("kernel too large", (2, 36, 1), rule, {"output_size": (3, 5), "kernel_size": 6, "padding": 1})
    for size, kernel, lengths in (((5, 5, 5), 2, "3 and 2"), (5, (2,), "2 and 1")):
        rule = f"output_size and kernel_size must agree in length, but got {lengths}"
        yield misuse(f"lengths {lengths}", x, rule, {"output_size": size, "kernel_size": kernel})


def of_columns(op, x, arguments):
    """Misuses of the options of unfold and fold, which take one integer per axis, or one for two."""
    for value in (None, "text"):
        rule = f"{op}: operands must be tensors, arrays, rectangular lists or numbers, but got {type(value).__name__}"
        yield Misuse(f"x {value}", op, (value,), rule, arguments, TypeError)
    for dtype in ("int64", "uint8", "bool"):
        takes = "torch moves bools" if dtype == "bool" else ""
        rule = f"{op}: x must have a floating dtype, but got {dtype}"
        yield Misuse(f"of {dtype}", op, (x,), rule, arguments, TypeError, (dtype,), takes)
    for name in ("kernel_size", "output_size", "stride", "padding", "dilation"):
        if name == "output_size" and op == "unfold":
            continue
        least = 0 if name == "padding" else 1
        required = name.endswith("_size")
        for what, value, kind, rule in (
            ("too small", least - 1, ValueError, f"at least {least}, but got {least - 1}"),
            ("too small on the last axis", (1, least - 1), ValueError, f"at least {least}, but got {least - 1}"),
            ("a fraction", 1.5, TypeError, "an integer, but got 1.5"),
            ("a fraction on one axis", (1, 0.5), TypeError, "an integer, but got 0.5"),
            ("None", None, TypeError, "an integer, but got None"),
            ("a text", "same", TypeError, "an integer, but got 'same'"),
            ("a bool", True, TypeError, "an integer, but got True"),
            ("of no axes", (), ValueError, f"one integer or {1 if required else 2}, but got 0: ()"),
            *[("of three axes", (1, 1, 1), ValueError, "one integer or 2, but got 3: (1, 1, 1)")] * (not required),
        ):
            yield Misuse(f"{name} {what}", op, (x,), f"{op}: {name} must be {rule}", arguments | {name: value}, kind)


MISUSES = [
    *(m for rank in (1, 2, 3) for m in of_both(f"conv{rank}d", rank)),
    *(m for rank in (1, 2, 3) for m in of_convolution(f"conv{rank}d", rank)),
    *(m for rank in (1, 2, 3) for m in of_both(f"conv_transpose{rank}d", rank)),
    *(m for rank in (1, 2, 3) for m in of_transpose(f"conv_transpose{rank}d", rank)),
    *of_unfold(),
    *of_fold(),
    *of_columns("unfold", (2, 3, 5, 5), {"kernel_size": 2}),
    *of_columns("fold", (2, 12, 16), {"output_size": 5, "kernel_size": 2}),
]

SAME_PADDING = [  # arguments, error
    ((5, 3), TypeError, "same_padding: size must be a Sequence, but got int"),
    ((None, 3), TypeError, "same_padding: size must be a Sequence, but got NoneType"),
    (((5, 5), (3,)), ValueError, "same_padding: kernel_size must be one integer or 2, but got 1: (3,)"),
    (((5, 0), 3), ValueError, "same_padding: size must be at least 1, but got 0"),
    (((5, 5), 0), ValueError, "same_padding: kernel_size must be at least 1, but got 0"),
    (((5, 5), 3, 0), ValueError, "same_padding: stride must be at least 1, but got 0"),
    (((5, 5), 3, 1, 0), ValueError, "same_padding: dilation must be at least 1, but got 0"),
    (((5, 5), 3, 1.5), TypeError, "same_padding: stride must be an integer, but got 1.5"),
    (((5, 5.5), 3), TypeError, "same_padding: size must be an integer, but got 5.5"),
]


def call(misuse, module):
    """Make the wrong call, to needle or torch."""

    def argument(value, dtype):
        if not isinstance(value, tuple):
            return value
        ones = np.ones(value, dtype)
        return ndl.Tensor(ones, requires_grad=False) if module is functional else torch.tensor(ones)

    arguments = [argument(value, dtype) for value, dtype in zip(misuse.arguments, misuse.dtypes, strict=False)]
    return getattr(module, misuse.op)(*arguments, **misuse.options)


each_op = pytest.mark.parametrize("op", sorted({misuse.op for misuse in MISUSES}))


@each_op
def test_misuse(monkeypatch, op, subtests):
    """The error has exactly this message, and no kernel ran."""

    def run(*arguments):
        pytest.fail("work on arrays was done")

    for name in ("correlate", "correlate_transpose", "correlate_weight", "unfold", "fold"):
        monkeypatch.setattr(kernels, name, run)
    for misuse in MISUSES:
        if misuse.op == op:
            with subtests.test(misuse.what):
                with pytest.raises(misuse.kind) as caught:
                    call(misuse, functional)
                assert (caught.type, str(caught.value)) == (misuse.kind, misuse.message)


@each_op
def test_torch_refuses_it_too(op, subtests):
    for misuse in MISUSES:
        if misuse.op == op:
            with subtests.test(misuse.what):
                if misuse.torch_takes_it:
                    call(misuse, torch.nn.functional)
                else:
                    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)):
                        call(misuse, torch.nn.functional)


@pytest.mark.parametrize(("arguments", "kind", "message"), SAME_PADDING)
def test_misuse_of_same_padding(arguments, kind, message):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        functional.same_padding(*arguments)


def test_every_function_has_rows():
    here = {name for name in functional.__all__ if getattr(functional, name).__module__ == functional.conv2d.__module__}
    assert here == {misuse.op for misuse in MISUSES} | {"same_padding"}
