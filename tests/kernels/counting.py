"""Counts of the kernels that a computation runs."""

from needle import kernels
from needle.kernels.conv import dispatch


def count_kernels(monkeypatch, *names):
    """A dict from the name of each kernel to the number of its runs, which grows with every run."""
    counts = dict.fromkeys(names, 0)

    def counted(name, kernel):
        def run(*arguments):
            counts[name] += 1
            return kernel(*arguments)

        return run

    for name in names:
        run = counted(name, getattr(kernels, name))
        monkeypatch.setattr(kernels, name, run)
        if hasattr(dispatch, name):  # the gradients of a convolution call it there
            monkeypatch.setattr(dispatch, name, run)
    return counts
