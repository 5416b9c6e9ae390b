"""NVIDIA's own NCCL, loaded by the installed CuPy, and its header: no GPU is needed for what is asked here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from needle.backend.cuda_nccl import ID_BYTES
from tests.gpu.first_gpu import ROOT
from tests.gpu.null.build import wheel

pytestmark = pytest.mark.gpu
PACKAGE = "nvidia-nccl-cu13, or -cu12, must be installed beside CuPy"
FAKE = (ROOT / "tests/gpu/null/nccl.cpp").read_text("utf-8")

# In a process of its own: in this one, CuPy may run on the NCCL of the null device.
PROGRAM = """
import json, warnings
from contextlib import nullcontext
from types import SimpleNamespace
from needle.backend import cuda_nccl

warnings.simplefilter("error")
version, reason = cuda_nccl.find_nccl()
library = cuda_nccl._library()
maker = library.NcclCommunicator
said = {"version": version, "reason": reason, "ids": [cuda_nccl.new_id().hex() for _ in range(2)]}
said |= {"byte": library.NCCL_UINT8, "error": issubclass(library.NcclError, RuntimeError)}
said["signatures"] = [getattr(maker, name).__doc__.partition("\\n")[0] for name in ("send", "recv", "bcast")]
try:
    library.groupStart()
    library.groupEnd()
    cuda_nccl.Nccl(SimpleNamespace(current=nullcontext), 1, cuda_nccl.new_id(), 0).close()
except RuntimeError as error:
    said["refused"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def header():
    """The text of `nccl.h`, without comments."""
    for base in sys.path:
        file = Path(base or ".") / "nvidia/nccl/include/nccl.h"
        if file.exists():
            return re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text("utf-8"), flags=re.DOTALL)
    pytest.skip(PACKAGE)


@pytest.mark.usefixtures("header")
def test_cupy_loads_it_by_itself_and_it_does_what_needs_no_gpu():
    if wheel() is None:
        pytest.skip("CuPy must be installed")
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["reason"] == ""
    assert said["version"] >= 21800
    assert [len(bytes.fromhex(number)) for number in said["ids"]] == [ID_BYTES] * 2
    assert len(set(said["ids"])) == 2
    assert said["byte"] == 1
    assert said["error"]
    assert said["signatures"] == [
        "NcclCommunicator.send(self, intptr_t sendbuf, size_t count, int datatype, int peer, intptr_t stream)",
        "NcclCommunicator.recv(self, intptr_t recvbuf, size_t count, int datatype, int peer, intptr_t stream)",
        "NcclCommunicator.bcast(self, intptr_t buff, size_t count, int datatype, int root, intptr_t stream)",
    ]
    said.setdefault("refused", "")  # there is a GPU
    assert re.fullmatch("|cuda: NCCL must connect the GPUs of 1 ranks, but got NCCL_ERROR_.*", said["refused"])


def kinds(parameters):
    """What each parameter of a function in C is to its caller: its place and its size."""
    words = {"ncclComm_t": "pointer", "cudaStream_t": "pointer", "size_t": "size", "Id": "id", "ncclUniqueId": "id"}
    for parameter in filter(None, (part.strip() for part in parameters.split(","))):
        first = parameter.removeprefix("const ").split()[0]
        yield "pointer" if "*" in parameter else words.get(first, "int")  # enumerations are ints


def functions(text):
    """Name -> kinds of parameters."""
    found = re.findall(r"^(?:ncclResult_t|const\s+char\*|int)\s+(nccl\w+)\(([^)]*)\)", text, re.MULTILINE)
    return {name: list(kinds(parameters)) for name, parameters in found}


def test_the_null_device_plays_functions_and_numbers_of_the_header(header):
    played, real = functions(FAKE), functions(header)
    assert {"ncclSend", "ncclRecv", "ncclBcast", "ncclCommInitRankConfig", "ncclGetErrorString"} <= played.keys()
    assert {name: real.get(name) for name in played} == played
    errors = re.findall(r"(\w+) = (\d)", re.search(r"enum Result {(.*?)}", FAKE)[1])
    assert len(errors) == 4
    for name, number in [*(("nccl" + error, number) for error, number in errors), ("ncclUint8", "1")]:
        assert re.search(rf"{name}\s*=\s*{number}\b", header), name
    assert f"#define NCCL_UNIQUE_ID_BYTES {ID_BYTES}" in header
