"""The course's module of logarithmic ops, under its names."""

from needle.ops.reduce import LogSoftmax, LogSumExp, logsoftmax, logsumexp

__all__ = ["LogSoftmax", "LogSumExp", "logsoftmax", "logsumexp"]
