"""Whether matrix products and convolutions on a GPU may round their operands to TF32."""

from __future__ import annotations

from types import TracebackType

__all__ = ["allow_tf32", "tf32_allowed"]

_switch = {"allowed": False}  # of the process


class allow_tf32:
    """Let GPUs round the float32 operands of matrix products and convolutions to TF32, in all threads; off by default.

    TF32 keeps 10 bits of the fraction instead of 23 (about 3 decimal digits); sums stay in float32. The matrix units of
    an A100 or a newer GPU multiply in it, several times as fast. The CPU and other dtypes ignore it. It holds until the
    next call, or to the end of a block:

    >>> import needle as ndl
    >>> ndl.allow_tf32()
    allow_tf32(True)
    >>> with ndl.allow_tf32(False):
    ...     pass  # products with all 23 bits
    >>> ndl.allow_tf32(False)
    allow_tf32(False)
    """

    def __init__(self, allowed: bool = True) -> None:
        self.allowed, self._before = bool(allowed), _switch["allowed"]
        _switch["allowed"] = self.allowed

    def __enter__(self) -> None:
        _switch["allowed"] = self.allowed

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _switch["allowed"] = self._before

    def __repr__(self) -> str:
        return f"allow_tf32({self.allowed})"


def tf32_allowed() -> bool:
    """Whether `allow_tf32` is on."""
    return _switch["allowed"]
