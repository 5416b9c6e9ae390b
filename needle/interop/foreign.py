"""Files of weights of other frameworks, as dicts of named arrays; nothing is unpickled, and no framework is needed.

Memory is bounded by the size of the file, of a compressed `.npz` by 1,032 times that. How the arrays lie, and what else
differs between the frameworks, is in docs/interop.md.
"""

from __future__ import annotations

from needle.interop.flax_files import read_flax
from needle.interop.keras_files import read_keras
from needle.interop.npz_files import read_npz

__all__ = ["read_flax", "read_keras", "read_npz"]
