"""The layering of the source, read from its imports: allowed imports, file lengths, entries at the root."""

import ast
import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The floors of needle and the rows on them, lowest first. A file imports only from rows before its own; an import for
# type checkers counts like any other. Unlisted files are siblings above these floors: they may import every row, but no
# other sibling. The rows of TOP stand on all of them, and do not import each other.
FLOORS = [
    [
        *("check", "words", "exports", "files", "tuning"),
        *("backend", "backend_ndarray", "backend_selection", "backend_numpy", "npz"),
    ],
    ["kernels"],
    ["grad_mode", "version_counter", "graph", "tensor_methods", "autograd", "derivatives", "outline"],
    ["ops"],
    ["init"],
    ["nn"],
]
TOP = ["training", "interop", "onnx"]
ROWS = [row for floor in FLOORS for row in floor]
WITHOUT_NUMPY = {*FLOORS[2], *FLOORS[3], *FLOORS[5]}  # they reach arrays through the device of their data
CALLED = {("backend", "threadpoolctl"), ("doctor", "threadpoolctl")}  # imported inside functions
CALLED |= {("training", "tqdm"), ("checkpoint", "safetensors"), ("data", "PIL")}
CALLED |= {("distributed", "mpi4py"), ("interop", "torch"), ("interop", "h5py"), ("interop", "safetensors")}
EXTRAS = {("onnx", "onnx"), ("onnx", "google")}  # a package of needle that is nothing without those it imports
CUPY = {"cupy", "cupyx", "cupy_backends"}
PUBLIC = {f"needle{name}" for name in ("", ".nn", ".nn.functional", ".nn.utils", ".optim", ".data", ".init", ".ops")}
PUBLIC |= {f"needle.{name}" for name in ("checkpoint", "optim.lr_scheduler", "metrics", "summary", "training")}
PUBLIC |= {"needle.distributed", "needle.distributed.launch", "needle.capture"}  # the last two are functions, too
PUBLIC |= {"needle.onnx", "needle.interop"} | {f"needle.interop.{name}" for name in ("torch", "foreign")}
RIVALS = {"torch", "mygrad", "dezero", "threadpoolctl"}  # among the apps, only apps/benchmark/ imports these
AT_ROOT = {"needle", "apps", "tests", "docs", "setup.py", "README.md", "pyproject.toml", "Makefile", "LICENSE"}
AT_ROOT |= {"findings", "CHANGELOG.md", "CONTRIBUTING.md", "MANIFEST.in"}
AT_ROOT |= {"PKG-INFO", "setup.cfg"}  # setuptools adds these to a source distribution
MAX_LINES = 400


class Source:
    """A Python file: its module name, its syntax tree, and what it imports."""

    def __init__(self, path: Path, root: Path, modules: set[str]):
        self.path = path.relative_to(root)
        self.text = path.read_text("utf-8")
        self.tree = ast.parse(self.text)
        self.module = module_name(self.path)
        self.row = ".".join(self.module.split(".")[1:2])  # "ops" for needle.ops.conv, "" for needle itself
        self.imports = list(self._imports(modules))

    def _imports(self, modules):
        """(imported module, line, whether at a call) of every import in the file."""
        in_functions = set()
        for outer in ast.walk(self.tree):
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                in_functions |= {id(inner) for inner in ast.walk(outer)}
        for node in ast.walk(self.tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.module.split(".") + ["__init__"] * (self.path.name == "__init__.py")
                    base = ".".join(package[: -node.level] + [node.module] * bool(node.module))
                inner = [f"{base}.{alias.name}" for alias in node.names]
                names = [name if name in modules else base for name in inner]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            for name in names:
                yield name, node.lineno, id(node) in in_functions

    def names_used(self, modules):
        """(dotted name, line) of everything reached through a name that an import of needle binds."""
        bound = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    package = alias.name.split(".")[0]
                    bound[alias.asname or package] = alias.name if alias.asname else package
                    yield alias.name, node.lineno
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full, node.lineno
                    if full in modules:
                        bound[alias.asname or alias.name] = full
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                first, _, attributes = ast.unparse(node).partition(".")
                if first in bound:
                    yield f"{bound[first]}.{attributes}", node.lineno


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root: Path, folder: str) -> list[Source]:
    modules = {module_name(path.relative_to(root)) for path in (root / "needle").rglob("*.py")}
    return [Source(path, root, modules) for path in sorted((root / folder).rglob("*.py"))]


def may_import(importer: str, imported: str) -> bool:
    """Whether a file of row `importer` may import from row `imported`."""
    if importer == "":
        return True
    if importer in TOP:
        return imported == importer or imported not in ["", *TOP]
    if importer not in ROWS:
        return imported in [*ROWS, importer]
    return imported in ROWS[: ROWS.index(importer) + 1]


def floor_violations(files: list[Source]):
    for file in files:
        if file.text.count("\n") > MAX_LINES:
            yield f"{file.path}: {file.text.count(chr(10))} lines, more than {MAX_LINES}"
        for name, line, at_call in file.imports:
            top, _, inner = name.partition(".")
            where = f"{file.path}:{line}"
            if top == "needle":
                if not may_import(file.row, inner.split(".")[0]):
                    yield f"{where}: {file.row} must not import {name}"
            elif top == "numpy":
                if file.row in WITHOUT_NUMPY:
                    yield f"{where}: {file.row} must not import numpy"
            elif top in CUPY:
                if file.row != "backend":
                    yield f"{where}: only backend imports {top}"
                elif not at_call:
                    yield f"{where}: {top} must be imported inside a function"
            elif (file.row, top) in EXTRAS:
                continue
            elif top not in sys.stdlib_module_names and not (at_call and (file.row, top) in CALLED):
                yield f"{where}: needle must not import {top}"


def cycles(files: list[Source]):
    """Files of one row that import each other; between rows the floors leave no room for a cycle."""
    row = {file.module: file.row for file in files}
    left = {
        file.module: {name for name, *_ in file.imports if row.get(name) == file.row and name != file.module}
        for file in files
    }
    size = None
    while size != len(left):  # remove files without imports or importers among the rest, until nothing changes
        size = len(left)
        left = {module: needs & left.keys() for module, needs in left.items() if needs & left.keys()}
        left = {module: needs for module, needs in left.items() if any(module in other for other in left.values())}
    if left:
        yield f"an import cycle runs through {', '.join(sorted(left))}"


def app_violations(files: list[Source], modules: set[str]):
    for file in files:
        for name, line, _ in file.imports:
            top = name.split(".")[0]
            if top in RIVALS and "benchmark" not in file.path.parts:
                yield f"{file.path}:{line}: only the benchmark imports {top}"
        for name, line in sorted(set(file.names_used(modules))):
            if name.split(".")[0] != "needle":
                continue
            private = any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
            if private or (name in modules and name not in PUBLIC) or name.rpartition(".")[0] in modules - PUBLIC:
                yield f"{file.path}:{line}: {name} is not public"


def root_violations(root: Path):
    ignored = [line.rstrip("/") for line in (root / ".gitignore").read_text("utf-8").splitlines()]
    for path in sorted(root.iterdir()):
        name = path.name
        if not (name in AT_ROOT or name.startswith(".") or any(fnmatch.fnmatch(name, rule) for rule in ignored)):
            yield f"{name}: does not belong at the root"


def violations(root: Path) -> list[str]:
    files = sources(root, "needle")
    modules = {file.module for file in files}
    return [
        *floor_violations(files),
        *cycles(files),
        *app_violations(sources(root, "apps"), modules),
        *root_violations(root),
    ]


def test_imports_respect_the_floors():
    reports = violations(ROOT)
    assert not reports, "\n".join(reports)


CLEAN = {
    ".gitignore": "build/\n*.egg-info/\n",
    "needle/__init__.py": "from needle.optim import SGD\nfrom needle import ops",
    "needle/check.py": "import numpy",
    "needle/backend/__init__.py": "from .device import cuda",
    "needle/backend/device.py": "from needle import check\ndef cuda():\n    import cupy",
    "needle/kernels/__init__.py": "import needle.check\nimport numpy as np",
    "needle/graph.py": "from needle.backend_ndarray import cuda",
    "needle/autograd.py": "from needle.graph import Op\nimport math",
    "needle/ops/__init__.py": "from needle.ops.conv import Conv",
    "needle/ops/conv.py": "from needle import kernels\nfrom ..autograd import Op",
    "needle/init/__init__.py": "import numpy\nfrom needle.autograd import Tensor",
    "needle/nn/__init__.py": "from needle import init, ops\nfrom needle.nn import functional",
    "needle/nn/functional.py": "from needle.ops.conv import Conv",
    "needle/optim.py": "import numpy\nfrom needle import nn",
    "needle/doctor.py": "def f():\n    import threadpoolctl",
    "needle/training/__init__.py": "from needle import nn, optim\nfrom needle.data import MNIST",
    "needle/onnx/__init__.py": "import onnx\nfrom needle import data",
    "needle/data/__init__.py": "from needle.data.mnist import MNIST",
    "needle/data/mnist.py": "from needle import check",
    "apps/train.py": "import needle as ndl\nimport needle.nn.functional as F\nndl.nn.ReLU()\nndl.__version__",
    "apps/benchmark/libraries/torch.py": "import torch",
    "build/junk.txt": "",
    "needle_dl.egg-info/junk.txt": "",
}


@pytest.mark.parametrize(
    ("path", "text", "report"),
    [
        ("needle/check.py", "from needle.backend_ndarray import cuda", "check must not import needle.backend_ndarray"),
        ("needle/kernels/__init__.py", "from needle import autograd", "kernels must not import needle.autograd"),
        ("needle/kernels/__init__.py", "from .. import autograd", "kernels must not import needle.autograd"),
        ("needle/kernels/__init__.py", "def f():\n    import needle.ops", ":2: kernels must not import needle.ops"),
        ("needle/autograd.py", "from .ops.conv import Conv", "autograd must not import needle.ops.conv"),
        ("needle/graph.py", "from needle.autograd import Tensor", "graph must not import needle.autograd"),
        ("needle/graph.py", "if TYPE_CHECKING:\n    from needle.autograd import Tensor", "graph must not import"),
        ("needle/autograd.py", "if TYPE_CHECKING:\n    from needle.nn import Module", "must not import needle.nn"),
        ("needle/ops/conv.py", "from needle import Conv", "ops must not import needle"),
        ("needle/ops/conv.py", "import importlib\nimportlib.import_module('needle.nn')", "must not import needle.nn"),
        ("needle/nn/functional.py", "import needle.optim", "nn must not import needle.optim"),
        ("needle/optim.py", "from needle.data import MNIST", "optim must not import needle.data"),
        ("needle/data/mnist.py", "from ..optim import SGD", "data must not import needle.optim"),
        ("needle/data/mnist.py", "from needle import training", "data must not import needle.training"),
        ("needle/training/__init__.py", "from needle import nn\nimport needle", "training must not import needle"),
        ("needle/training/__init__.py", "from needle import onnx", "training must not import needle.onnx"),
        ("needle/data/__init__.py", "import onnx", "needle must not import onnx"),
        ("needle/ops/conv.py", "from needle.ops import flip", "cycle runs through needle.ops, needle.ops.conv"),
        ("needle/ops/conv.py", "from . import Conv", "cycle runs through needle.ops, needle.ops.conv"),
        ("needle/autograd.py", "import numpy.linalg", "autograd must not import numpy"),
        ("needle/nn/functional.py", "from numpy import exp", "nn must not import numpy"),
        ("needle/optim.py", "def f():\n    import cupy", "only backend imports cupy"),
        ("needle/backend/device.py", "try:\n    import cupy\nexcept ImportError: ...", "inside a function"),
        ("needle/data/__init__.py", "import torch", "needle must not import torch"),
        ("needle/doctor.py", "import threadpoolctl", "needle must not import threadpoolctl"),
        ("needle/optim.py", "def f():\n    import threadpoolctl", "needle must not import threadpoolctl"),
        ("needle/check.py", "\n" * (MAX_LINES + 1), "401 lines"),
        ("apps/train.py", "from needle.autograd import Tensor", "needle.autograd.Tensor is not public"),
        ("apps/train.py", "from needle import kernels", "needle.kernels is not public"),
        ("apps/train.py", "import needle\nneedle.autograd.Tensor", ":2: needle.autograd is not public"),
        ("apps/train.py", "from needle.nn import _hidden", "needle.nn._hidden is not public"),
        ("apps/train.py", "import needle.nn as nn\nnn.Conv._hidden()", "needle.nn.Conv._hidden is not public"),
        ("apps/train.py", "def f():\n    from torch import nn", "apps/train.py:2: only the benchmark imports torch"),
        ("utils.py", "", "utils.py: does not belong at the root"),
    ],
)
def test_the_checker_has_teeth(tmp_path, path, text, report):
    for name, content in CLEAN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    assert violations(tmp_path) == []
    (tmp_path / path).write_text(text, "utf-8")
    assert report in violations(tmp_path)[0]


def test_importing_needle_is_silent_and_touches_no_gpu(tmp_path):
    for name in ("cupy", "torch"):
        (tmp_path / f"{name}.py").write_text(f"print('{name} was imported')", "utf-8")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import needle"
    process = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_importing_needle_does_not_read_the_metadata_of_distributions():
    """It loads half of the standard library, and is needed only if a GPU is requested."""
    code = "import numpy, sys; before = set(sys.modules); import needle; print(*(set(sys.modules) - before))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "needle.nn" in process.stdout.split()
    assert not {"importlib.metadata", "email.message", "zipfile"} & set(process.stdout.split())
    late = {
        f"needle.{name}" for name in ("training", "distributed", "interop", "onnx", "kernels.gpu")
    }  # until asked for
    assert not {*late, "pathlib"} & set(process.stdout.split())
