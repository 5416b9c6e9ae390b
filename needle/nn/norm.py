"""Normalisation: modules that hold the parameters and running statistics of `functional`'s norms."""

from __future__ import annotations

import warnings

from needle import check, init
from needle.nn import functional
from needle.nn.functional.norm import as_normalized_shape, over_batch
from needle.nn.module import Module, Parameter
from needle.ops import reshape
from needle.ops.conv import check_floats
from needle.ops.operand import tensor


class _ChannelNorm(Module):
    """What norms over (N, C, *S) hold: weight and bias where `affine`, running statistics where these are tracked."""

    ranks = ()  # how many axes inputs may have
    counts_batches = True  # whether tracking counts batches too, in `num_batches_tracked`
    features_name = "num_features"

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, device, dtype, bias):
        super().__init__()
        name, options = type(self).__name__, {"device": device, "dtype": dtype}
        self.num_features = check.integer(name, self.features_name, num_features, least=1)
        self.eps = check.number(name, "eps", eps, least=0)
        if momentum is not None or not self.counts_batches:
            momentum = check.number(name, "momentum", momentum, least=0, most=1)
        self.momentum, self.affine, self.track_running_stats = momentum, bool(affine), bool(track_running_stats)
        self.weight = Parameter(init.ones(num_features, **options)) if affine else None
        self.bias = Parameter(init.zeros(num_features, **options)) if affine and bias else None
        self.running_mean = init.zeros(num_features, **options) if track_running_stats else None
        self.running_var = init.ones(num_features, **options) if track_running_stats else None
        self.num_batches_tracked = None
        if track_running_stats and self.counts_batches:
            self.num_batches_tracked = init.zeros(device=device, dtype="int64")

    def check_input(self, x, axis=1):
        """Refuse inputs with other axes, or other channels in `axis`."""
        if x.ndim not in self.ranks or x.shape[axis] != self.num_features:
            ranks = " or ".join(map(str, self.ranks))
            raise ValueError(
                f"{type(self).__name__}: x must have {ranks} axes and {self.num_features} channels, "
                f"but got shape {x.shape}"
            )

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


# ---- by the batch ----------------------------------------------------------------------------------------------------


class _BatchNorm(_ChannelNorm):
    """Each channel of (N, C, …) to mean 0 and variance 1 over the batch, in evaluation by running statistics.

    The course's contract: the first argument and its attribute are called `dim` (torch's `num_features` is understood
    too), and variances are biased (divided by the count), in `running_var` too, where torch's is unbiased:
    running = (1 - momentum) · running + momentum · batch. `affine`, `track_running_stats` and `bias` are torch's.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1.
    """

    counts_batches = False
    features_name = "dim"

    def __init__(
        self, dim=None, eps=1e-5, momentum=0.1, device=None, dtype="float32", *, num_features=None, affine=True,
        track_running_stats=True, bias=True
    ):  # fmt: skip
        if dim is not None and num_features is not None:
            name = type(self).__name__
            raise TypeError(f"{name}: dim and num_features are one argument, but got both: {dim} and {num_features}")
        dim = num_features if dim is None else dim
        super().__init__(dim, eps, momentum, affine, track_running_stats, device, dtype, bias)

    @property
    def dim(self):
        return self.num_features

    def forward(self, x):
        self.check_input(x)
        if not x.size:
            raise ValueError(f"{type(self).__name__}: the batch must not be empty, but got shape {x.shape}")
        training = self.training or not self.track_running_stats
        statistics = (self.running_mean, self.running_var)
        return over_batch(x, *statistics, self.weight, self.bias, training, self.momentum, self.eps, unbiased=False)


class BatchNorm1d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace("(N, C, …)", "(N, C) or (N, C, L)")
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace("(N, C, …)", "(N, C, H, W)")
    ranks = (4,)


class BatchNorm3d(_ChannelNorm):
    """Each channel of (N, C, D, H, W) to mean 0 and variance 1 over the batch, in evaluation by running statistics.

    Torch's contract, `functional.batch_norm`: unlike that of BatchNorm1d and BatchNorm2d here, `running_var` is
    unbiased. With `momentum=None` the running statistics are the averages over all batches.
    """

    ranks = (5,)

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype="float32",
        *, bias=True
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x):
        self.check_input(x)
        momentum = self.momentum or 0.0
        if self.training and self.track_running_stats:
            self.num_batches_tracked.data = self.num_batches_tracked + 1
            if self.momentum is None:
                momentum = 1 / self.num_batches_tracked.astype(self.running_mean.dtype)
        training = self.training or not self.track_running_stats
        statistics = (self.running_mean, self.running_var)
        return functional.batch_norm(x, *statistics, self.weight, self.bias, training, momentum, self.eps)


# ---- by the instance -------------------------------------------------------------------------------------------------


class _InstanceNorm(_ChannelNorm):
    """Each channel of each element of (N, C, …), or of (C, …), to mean 0 and variance 1: `functional.instance_norm`.

    Where running statistics are tracked, evaluation normalises by them.
    """

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None,
        dtype="float32", *, bias=True
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x):
        unbatched = x.ndim == self.ranks[0]
        channels = x.shape[not unbatched] if x.ndim in self.ranks else None
        if self.affine or self.track_running_stats or channels is None:
            self.check_input(x, int(not unbatched))
        elif channels != self.num_features:
            name = type(self).__name__
            warnings.warn(f"{name}: {self.num_features} channels were declared, but got x {x.shape}", stacklevel=3)
        batch = reshape(x, (1, *x.shape)) if unbatched else x
        by_input = self.training or not self.track_running_stats
        options = (self.weight, self.bias, by_input, self.momentum or 0.0, self.eps)
        return reshape(functional.instance_norm(batch, self.running_mean, self.running_var, *options), x.shape)


class InstanceNorm1d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("…", "L")
    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("…", "H, W")
    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("…", "D, H, W")
    ranks = (4, 5)


# ---- by features -----------------------------------------------------------------------------------------------------


class LayerNorm(Module):
    """The last axes of (…, *normalized_shape) to mean 0 and variance 1; see `functional.layer_norm`."""

    def __init__(
        self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype="float32"
    ):  # fmt: skip
        super().__init__()
        self.normalized_shape = as_normalized_shape("LayerNorm", normalized_shape)
        self.eps = check.number("LayerNorm", "eps", eps, least=0)
        self.elementwise_affine = bool(elementwise_affine)
        shape, options = self.normalized_shape, {"device": device, "dtype": dtype}
        self.weight = Parameter(init.ones(*shape, **options)) if elementwise_affine else None
        self.bias = Parameter(init.zeros(*shape, **options)) if elementwise_affine and bias else None

    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm1d(Module):
    """The last axis of (…, dim) to mean 0 and variance 1, then times `weight` (dim,) plus `bias` (dim,).

    A name of the course for `LayerNorm` of one axis. The parameters begin as ones and zeros. Where the dtypes of x and
    of the parameters differ, the wider one is that of the result. See `functional.layer_norm`.
    """

    def __init__(self, dim, eps=1e-5, device=None, dtype="float32"):
        super().__init__()
        self.dim = check.integer("LayerNorm1d", "dim", dim, least=1)
        self.eps = check.number("LayerNorm1d", "eps", eps, least=0)
        self.weight = Parameter(init.ones(self.dim, device=device, dtype=dtype))
        self.bias = Parameter(init.zeros(self.dim, device=device, dtype=dtype))

    def forward(self, x):
        x = tensor("LayerNorm1d", x)
        check_floats("LayerNorm1d", x=x)
        wider = max(x.dtype, self.weight.dtype, self.bias.dtype, key=lambda dtype: dtype.itemsize)
        x, weight, bias = (value.astype(wider) for value in (x, self.weight, self.bias))
        return functional.layer_norm(x, self.dim, weight, bias, self.eps)

    def extra_repr(self):
        return f"{self.dim}, eps={self.eps}"


class GroupNorm(Module):
    """Each of `num_groups` groups of channels of each element of (N, C, *S) to mean 0 and variance 1.

    See `functional.group_norm`.
    """

    def __init__(
        self, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype="float32", *, bias=True
    ):  # fmt: skip
        super().__init__()
        self.num_groups = check.integer("GroupNorm", "num_groups", num_groups, least=1)
        self.num_channels = check.integer("GroupNorm", "num_channels", num_channels, least=1)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide num_channels, but got {num_groups} and {num_channels}")
        self.eps, self.affine = check.number("GroupNorm", "eps", eps, least=0), bool(affine)
        options = {"device": device, "dtype": dtype}
        self.weight = Parameter(init.ones(num_channels, **options)) if affine else None
        self.bias = Parameter(init.zeros(num_channels, **options)) if affine and bias else None

    def forward(self, x):
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
