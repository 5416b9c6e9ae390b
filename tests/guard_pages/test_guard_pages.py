"""The guard pages see a read beyond an array, on the side that they guard."""

import shutil
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from tests.guard_pages import guard

guard(sys.argv[1])
a = np.arange(1000, dtype="float32")
a.resize(3000, refcheck=False)  # copies to another place
assert a[:1000].sum() == 499500 and not a[1000:].any()
assert (np.zeros(5), np.empty((0, 3)), np.ones((3, 2)) @ np.ones((2, 700)))[2].sum() == 4200
print("inside", flush=True)
first, n = int(sys.argv[2]), int(sys.argv[3])
np.lib.stride_tricks.as_strided(a[1:], (n,), (4 * first,)).copy()
print("beyond")
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiles its allocator: there is no gcc")
@pytest.mark.parametrize(("side", "seen", "unseen"), [("after", (1, 3000), (1, 2999)), ("before", (-1, 3), (-1, 2))])
def test_a_read_beyond_the_array_ends_the_process(side, seen, unseen):
    """a[1:] has 2,999 elements after it starts and one before."""
    for (step, n), code, lines in [(unseen, 0, ["inside", "beyond"]), (seen, -signal.SIGSEGV, ["inside"])]:
        command = [sys.executable, "-c", SCRIPT, side, str(step), str(n)]
        child = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (child.returncode, child.stdout.split()) == (code, lines), child.stderr
