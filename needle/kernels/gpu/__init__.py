"""Kernels in CUDA C, and the launchers that take the place of needle's kernels on GPUs.

Nothing here is imported before a GPU is first used. Each source `NAME.cu` has its launchers in `NAME.py`.
"""

import needle.kernels.gpu.batch
import needle.kernels.gpu.columns
import needle.kernels.gpu.pool
from needle.kernels.gpu.source import LAUNCHERS as LAUNCHERS
