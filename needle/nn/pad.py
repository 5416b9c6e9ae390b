"""Padding layers, made from one table."""

from __future__ import annotations

from needle import check
from needle.nn import functional
from needle.nn.module import Module


class _Pad(Module):
    """`functional.pad` of the last `rank` axes: `padding` is one integer for all sides, or 2·rank in its order."""

    mode, rank = "constant", 0

    def __init__(self, padding):
        super().__init__()
        self.padding = check.sizes(type(self).__name__, "padding", padding, 2 * self.rank, least=None)

    def forward(self, x):
        return functional.pad(x, self.padding, self.mode)

    def extra_repr(self):
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """`functional.pad` of the last `rank` axes with `value`."""

    def __init__(self, padding, value):
        super().__init__(padding)
        self.value = value

    def forward(self, x):
        return functional.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


def _layers(name, mode, base=_Pad):
    """The layers of one mode, for one, two and three axes."""
    for rank in (1, 2, 3):
        what = f'`functional.pad` of the last {rank} axes, mode "{mode}"; `padding` is one integer or {2 * rank}.'
        yield type(f"{name}{rank}d", (base,), {"__doc__": what, "__module__": __name__, "mode": mode, "rank": rank})


CircularPad1d, CircularPad2d, CircularPad3d = _layers("CircularPad", "circular")
ConstantPad1d, ConstantPad2d, ConstantPad3d = _layers("ConstantPad", "constant", _ConstantPad)
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = _layers("ReflectionPad", "reflect")
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = _layers("ReplicationPad", "replicate")
ZeroPad1d, ZeroPad2d, ZeroPad3d = _layers("ZeroPad", "constant")
