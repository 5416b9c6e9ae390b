"""Normalization layers: parameters and running statistics around the functions of `functional.norm`.

Each maps x to a result of the same shape: subtract the mean, divide by sqrt(variance + eps), then multiply by `weight`
and add `bias`. x must have a floating dtype (TypeError). Parameters start as ones and zeros, without random draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn import functional
from needle.nn.functional.norm import as_normalized_shape, checked_batch_norm
from needle.nn.module import Module
from needle.nn.parameter import Parameter
from needle.ops import reshape
from needle.ops.operand import cast_like, tensor

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm1d",
]


class _ChannelNorm(Module):
    """State of the norms over (N, C, *S): weight and bias if `affine`, running statistics if they are tracked."""

    ndims: ClassVar[tuple[int, ...]]  # the numbers of axes that inputs may have
    size_name: ClassVar[str] = "num_features"
    fixed = ("num_features", "affine")
    flags = ("affine", "track_running_stats")
    optional = ("num_batches_tracked",)
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int | None, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: Device | None, dtype: DTypeLike, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.num_features = check.integer(name, self.size_name, num_features, least=1)
        self.eps = check.number(name, "eps", eps, least=0)
        self.momentum = None if momentum is None else check.number(name, "momentum", momentum, least=0, most=1)
        self.affine, self.track_running_stats = affine, track_running_stats
        _register_affine(self, (self.num_features,), affine, bias, device, dtype)
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(buffer, None)
        if track_running_stats:
            self.running_mean = init.zeros(self.num_features, device=device, dtype=dtype)
            self.running_var = init.ones(self.num_features, device=device, dtype=dtype)
            self.num_batches_tracked = init.zeros(device=device, dtype="int64")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "track_running_stats" and value is True and vars(self).get(name) is False:
            kind = type(self).__name__
            raise AttributeError(f"{kind}: track_running_stats must be True from the start, but got True later")
        super().__setattr__(name, value)

    def _check_input(self, x: Tensor, axis: int = 1) -> None:
        """Refuse x if it has other axes, or other channels in `axis`."""
        if len(x.shape) not in self.ndims or x.shape[axis] != self.num_features:
            ndims = " or ".join(map(str, self.ndims))
            raise ValueError(
                f"{type(self).__name__}: x must have {ndims} axes and {self.num_features} channels, "
                f"but got shape {x.shape}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


def _register_affine(
    layer: Module, shape: tuple[int, ...], affine: bool, bias: bool, device: Device | None, dtype: DTypeLike
) -> None:
    """Weight and bias of a norm, ones and zeros; None for one that is left out."""
    check.instance(type(layer).__name__, "bias", bias, bool)
    weight = Parameter(init.ones(*shape, device=device, dtype=dtype)) if affine else None
    layer.register_parameter("weight", weight)
    shift = Parameter(init.zeros(*shape, device=device, dtype=dtype)) if affine and bias else None
    layer.register_parameter("bias", shift)


# ---- over the batch --------------------------------------------------------------------------------------------------


class _BatchNorm(_ChannelNorm):
    """Batch normalization; `unbiased` says which variance `running_var` tracks."""

    unbiased: ClassVar[bool]

    def forward(self, x: TensorLike) -> Tensor:
        return self._normalized(x, rectified=False)

    def forward_relu(self, x: TensorLike) -> Tensor:
        return self._normalized(x, rectified=True)

    def _normalized(self, x: TensorLike, rectified: bool) -> Tensor:
        name = type(self).__name__
        x = self._cast(tensor(name, x))
        self._check_input(x)
        tracks = self.training and self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if tracks or not self.training else (None, None)
        counter = self.num_batches_tracked if tracks else None
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.momentum is None and counter is not None and mean is not None:
            momentum = 1 / (counter + 1).astype(mean.dtype)
        return checked_batch_norm(
            name, x, mean, var, self.weight, self.bias, self.training or mean is None, momentum, self.eps,
            self.unbiased, rectified, counter,
        )  # fmt: skip

    def _cast(self, x: Tensor) -> Tensor:
        return x


class _CourseBatchNorm(_BatchNorm):
    """Batch normalization by the course's contract: biased variances, and x in any floating dtype."""

    size_name = "dim"
    unbiased = False

    def __init__(
        self, dim: int | None = None, eps: float = 1e-5, momentum: float | None = 0.1,
        device: Device | bool | None = None, dtype: DTypeLike | bool = "float32", *, num_features: int | None = None,
        affine: bool = True, track_running_stats: bool = True, bias: bool = True,
    ) -> None:  # fmt: skip
        if dim is not None and num_features is not None:
            name = type(self).__name__
            raise TypeError(f"{name}: dim and num_features are one argument, but got both: {dim} and {num_features}")
        if isinstance(device, bool):
            affine, device = device, None
        if isinstance(dtype, bool):
            track_running_stats, dtype = dtype, "float32"
        dim = num_features if dim is None else dim
        super().__init__(dim, eps, momentum, affine, track_running_stats, device, dtype, bias)

    @property
    def dim(self) -> int:
        return self.num_features

    def _cast(self, x: Tensor) -> Tensor:
        like = self.running_mean if self.weight is None else self.weight
        return x if like is None or x.spec.dtype == like.spec.dtype else cast_like(type(self).__name__, x, like)


class BatchNorm1d(_CourseBatchNorm):
    """Normalize each channel of x (N, C) or (N, C, L) over the batch; in evaluation by running statistics.

    The course's contract. The first argument and its attribute are called `dim`, the number C of channels; torch's
    `num_features` is accepted too. Variances are biased (divided by the count), in `running_var` too, where torch's is
    unbiased: running = (1 - momentum) · running + momentum · batch. With `momentum=None` the running statistics are the
    averages over all batches, which the buffer `num_batches_tracked` (), int64, counts.

    `weight` (C,) starts as ones, `bias` (C,) as zeros; the buffers `running_mean` (C,) as zeros, `running_var` (C,) as
    ones. `affine=False` leaves out weight and bias, `bias=False` the bias, `track_running_stats=False` the buffers, so
    that evaluation uses the batch too. Bools in the places of `device` and `dtype` are torch's: `affine` and
    `track_running_stats`.

    The result has the dtype of `weight`; x of another floating dtype is cast to it. An empty batch leaves the buffers
    as they are. Raises ValueError if x has other axes or channels, or in training a single value per channel or
    eps = 0; TypeError if x is not floating-point.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2.
    """

    ndims = (2, 3)


class BatchNorm2d(_CourseBatchNorm):
    """Normalize each channel of x (N, C, H, W) over the batch; in evaluation by running statistics.

    Parameters, buffers, options and errors as in `BatchNorm1d`.

    Ioffe and Szegedy, "Batch Normalization" (2015), section 3.2.

    >>> import needle as ndl
    >>> norm = BatchNorm2d(3)
    >>> norm(ndl.ones(4, 3, 8, 8)).shape, [name for name, _ in norm.named_buffers()]
    ((4, 3, 8, 8), ['running_mean', 'running_var', 'num_batches_tracked'])
    """

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalize each channel of x (N, C, D, H, W) over the batch; in evaluation by running statistics.

    Torch's contract: unlike in BatchNorm1d and BatchNorm2d here, `running_var` is unbiased (divided by the count
    less 1), and x must have the dtype of `weight` (TypeError). Otherwise as `BatchNorm1d`.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2.
    """

    ndims = (5,)
    unbiased = True

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Device | None = None, dtype: DTypeLike = "float32", *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)


# ---- over each element of the batch ----------------------------------------------------------------------------------


class _InstanceNorm(_ChannelNorm):
    """Instance normalization; if running statistics are tracked, evaluation uses them."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Device | None = None, dtype: DTypeLike = "float32", *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x: TensorLike) -> Tensor:
        x = tensor(type(self).__name__, x)
        batched = x.ndim != self.ndims[0]
        if self.affine or self.track_running_stats or x.ndim not in self.ndims:
            self._check_input(x, axis=int(batched))
        elif x.shape[batched] != self.num_features:
            name = type(self).__name__
            warnings.warn(f"{name}: {self.num_features} channels were declared, but got x {x.shape}", stacklevel=3)
        batch = x if batched else reshape(x, (1, *x.shape))
        use_input_stats = self.training or not self.track_running_stats
        y = functional.instance_norm(
            batch, self.running_mean, self.running_var, self.weight, self.bias, use_input_stats,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return reshape(y, x.shape)


class InstanceNorm1d(_InstanceNorm):
    """Normalize each channel of each element of x (N, C, L), or of x (C, L).

    `weight` and `bias` (C,) exist with `affine=True`, `bias=False` leaves out the bias. With `track_running_stats=True`
    the buffers of `BatchNorm3d` exist, and evaluation normalizes by them; `running_var` is unbiased. Raises ValueError
    if x has other axes, other channels than the parameters or buffers, or a single value per channel; without
    parameters and buffers, other channels only cause a warning, as in torch.

    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016), equation 3.
    """

    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalize each channel of each element of x (N, C, H, W), or of x (C, H, W); see `InstanceNorm1d`."""

    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalize each channel of each element of x (N, C, D, H, W), or of x (C, D, H, W); see `InstanceNorm1d`."""

    ndims = (4, 5)


# ---- over features ---------------------------------------------------------------------------------------------------


class LayerNorm(Module):
    """Normalize the last axes of x (…, *normalized_shape) together.

    `normalized_shape` is a tuple of sizes, or one integer. `weight` and `bias` have that shape;
    `elementwise_affine=False` leaves out both, `bias=False` the bias. They must have the dtype of x (float32 for
    float16 is accepted, too). Raises ValueError if x does not end in these axes, TypeError if dtypes do not fit.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4.
    """

    weight: Tensor | None
    bias: Tensor | None
    fixed = ("normalized_shape", "elementwise_affine")
    flags = ("elementwise_affine",)

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape: tuple[int, ...] = as_normalized_shape("LayerNorm", normalized_shape)
        self.eps = check.number("LayerNorm", "eps", eps, least=0)
        self.elementwise_affine = elementwise_affine
        _register_affine(self, self.normalized_shape, elementwise_affine, bias, device, dtype)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm1d(Module):
    """Normalize the last axis of x (…, dim), then multiply by `weight` (dim,) and add `bias` (dim,).

    The course's `LayerNorm` of one axis. The result has the dtype of `weight`; x of another floating dtype is cast to
    it. Raises ValueError if x does not end in an axis of `dim`, TypeError if x is not floating-point.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4.
    """

    fixed = ("dim",)

    def __init__(
        self, dim: int, eps: float = 1e-5, device: Device | None = None, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim = check.integer("LayerNorm1d", "dim", dim, least=1)
        self.eps = check.number("LayerNorm1d", "eps", eps, least=0)
        self.weight: Tensor = Parameter(init.ones(self.dim, device=device, dtype=dtype))
        self.bias: Tensor = Parameter(init.zeros(self.dim, device=device, dtype=dtype))

    def forward(self, x: TensorLike) -> Tensor:
        x = cast_like("LayerNorm1d", x, self.weight)
        return functional.layer_norm(x, self.dim, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"


class GroupNorm(Module):
    """Normalize each of `num_groups` groups of channels of each element of x (N, C, *S), C = num_channels.

    `weight` and `bias` are (C,); `affine=False` leaves out both, `bias=False` the bias. Raises ValueError if the groups
    do not divide the channels, x has other channels, or a group has a single value.

    Wu and He, "Group Normalization" (2018), equations 1 to 4.
    """

    weight: Tensor | None
    bias: Tensor | None
    fixed = ("num_channels", "affine")
    flags = ("affine",)

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Device | None = None,
        dtype: DTypeLike = "float32", *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_groups = check.integer("GroupNorm", "num_groups", num_groups, least=1)
        self.num_channels = check.integer("GroupNorm", "num_channels", num_channels, least=1)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide num_channels, but got {num_groups} and {num_channels}")
        self.eps, self.affine = check.number("GroupNorm", "eps", eps, least=0), affine
        _register_affine(self, (num_channels,), affine, bias, device, dtype)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
