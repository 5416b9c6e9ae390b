"""needle.interop as a package."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_its_modules_come_with_needle_and_import_no_other_framework():
    code = (
        "import sys, needle as ndl; ndl.interop.torch.read, ndl.interop.foreign.read_keras; "
        "print({'torch', 'h5py', 'safetensors', 'onnx'} & {*sys.modules})"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"
