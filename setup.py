"""The metadata of the distribution; `pyproject.toml` holds only the build system and tool settings."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# Pinned, because tests and benchmarks compare with it: its rounding, bugs and speed change with its version. So are the
# two packages of ONNX in the tests, which bring the official suite and a second oracle.
TORCH = "torch==2.13.0"
# Earlier versions need twice the memory, to write and to read.
SAFETENSORS = ["safetensors>=0.8"]
ONNX = ["onnx>=1.23"]
PILLOW = ["pillow>=11"]
HDF5 = ["h5py>=3.12"]
MPI = ["mpi4py>=4.1"]  # it loads the MPI that the machine has; the tests bring one along
# Pinned: one module of CuPy is built again from the source of the same version (tests/gpu/null).
CUPY_ON_CPU = [
    "cupy-cuda13x==14.2.0",
    "cython==3.2.*",
    "nvidia-cuda-crt==13.*",
    "nvidia-cuda-nvrtc==13.*",
    "nvidia-cuda-runtime==13.*",
    "setuptools>=77",
]
APPS = ["matplotlib>=3.8", *PILLOW, "tqdm>=4.64"]


def version() -> str:
    """`__version__` of `needle/__init__.py`, read without importing the package."""
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "needle/__init__.py").read_text("utf-8"), re.MULTILINE)
    if match is None:
        raise RuntimeError('setup: needle/__init__.py must hold a line __version__ = "…", but it has none')
    return match[1]


setup(
    name="needle-dl",
    version=version(),
    description="A small deep-learning framework: automatic differentiation on NumPy, and on CuPy where there is a GPU",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The needle authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    install_requires=["numpy>=2.0", "threadpoolctl>=3.5"],
    extras_require={
        "apps": APPS,
        "bench": [TORCH],
        "cuda12x": ["cupy-cuda12x[ctk]>=14"],
        "cuda13x": ["cupy-cuda13x[ctk]>=14"],
        "data": PILLOW,
        "docs": [*ONNX, "sphinx>=8.1", "myst-parser>=4.0", "furo>=2024.8.6"],
        "gpu-check": CUPY_ON_CPU,
        "hdf5": HDF5,
        "lint": ["ruff>=0.12", "mypy>=1.15", "basedpyright>=1.30"],
        "mpi": MPI,
        "onnx": ONNX,
        "safetensors": SAFETENSORS,
        "test": [
            *APPS,
            *HDF5,
            *MPI,
            *SAFETENSORS,
            "pytest>=9",
            "pytest-xdist>=3.6",
            "hypothesis>=6.115",
            "mpich>=4.3; sys_platform != 'win32'",
            "scikit-learn>=1.6",
            "scipy>=1.14",
            TORCH,
            "onnx==1.23.2",
            "onnxruntime==1.32.0",
        ],
    },
    packages=find_packages(include=["needle", "needle.*"]),
    package_data={"needle": ["py.typed", "data/*.npz", "data/*.txt", "kernels/gpu/*.cu"]},
)
