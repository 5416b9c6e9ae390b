#!/usr/bin/env bash
# NumPy 2.4.6: `squeeze()` of an instance of an ndarray subclass returns a view of the subclass whose `base` is a plain
# ndarray, not the instance. So the view does not keep the instance alive, as x[:], reshape, T, view and expand_dims do,
# and as `squeeze` itself does for plain arrays. A subclass that ties memory to its instances (a block of a pool, given
# back by `weakref.finalize`) loses it while a squeezed view is still in use: here two arrays get the same memory, and
# one overwrites the other. So do np.squeeze and broadcast_to(..., subok=True). What holds is the third argument of
# `__array_finalize__`: it is called with the instance for squeezed views, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import weakref

import numpy as np

print("NumPy", np.__version__)


class Pooled(np.ndarray):
    """An array in a block of a pool, which gets the block back once nobody has the array."""


class Pool:
    def __init__(self):
        self.free = [np.zeros(3)]

    def array(self):
        block = self.free.pop() if self.free else np.zeros(3)
        array = np.ndarray.__new__(Pooled, (1, 3), float, block)
        weakref.finalize(array, self.free.append, block)
        return array


def view_and_next(make_view):
    """A view of an array that nobody else has, filled with 1, and the next array of the pool, filled with 2."""
    pool = Pool()
    first = pool.array()
    view = make_view(first)
    del first
    view[...] = 1
    pool.array()[...] = 2
    return view


views = {
    "x[:]": lambda x: x[:],
    "x.reshape(3)": lambda x: x.reshape(3),
    "x.T": lambda x: x.T,
    "np.expand_dims(x, 0)": lambda x: np.expand_dims(x, 0),
    "x.squeeze()": lambda x: x.squeeze(),
    "np.squeeze(x)": np.squeeze,
}
for name, make_view in views.items():
    view = view_and_next(make_view)
    print(f"{name}: a {type(view).__name__} on a {type(view.base).__name__}; expected 1.0:", view.ravel()[0])
    assert view.ravel()[0] == (2 if "squeeze" in name else 1)

plain = np.zeros((1, 3))
assert plain.squeeze().base is plain

sources = []


class Noting(np.ndarray):
    def __array_finalize__(self, source):
        sources.append(source)


noting = np.zeros((1, 3)).view(Noting)
noting.squeeze()
print("__array_finalize__ is told the instance:", sources[-1] is noting)
assert sources[-1] is noting
PYTHON
