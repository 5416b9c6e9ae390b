"""Kernels in CUDA C, and the launchers that take the place of needle's kernels on GPUs.

Nothing here is imported before a GPU is first used. Each source `NAME.cu` has its launchers in `NAME.py`; importing the
package registers them all.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path

from needle.kernels.gpu.source import LAUNCHERS as LAUNCHERS

for _path in sorted(_Path(__file__).parent.glob("[a-z]*.py")):
    _import_module(f"{__name__}.{_path.stem}")
