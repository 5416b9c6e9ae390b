"""What the benchmark times, as data: a new network, layer or size is one entry here, and every library builds it.

A network is a tuple of layers. A layer states only its own parameters; input channels and sizes follow from the shape
of the data. `CASES` maps each case to its rows of work by title; `RIVALS` lists the cases that a library runs. Only the
standard library is imported, so that the measuring process stays small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

Shape = tuple[int, ...]

# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer by its kind, applied to one example (C, *S)."""

    kind: str
    out: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    body: tuple[Layer, ...] = ()

    def output(self, shape: Shape) -> Shape:
        """The output shape (O, *P) for an example (C, *S)."""
        channels, *sides = shape
        extent = self.dilation * (self.kernel - 1) + 1
        match self.kind:
            case "conv" | "max_pool":
                return (self.out or channels, *((n + 2 * self.padding - extent) // self.stride + 1 for n in sides))
            case "conv_transpose":
                return (self.out, *((n - 1) * self.stride - 2 * self.padding + extent for n in sides))
            case "average":
                return (channels,)
            case "flatten":
                return (math.prod(shape),)
            case "linear":
                return (self.out,)
            case "cross_entropy":
                return ()
        return tuple(shape)

    def parameters(self, shape: Shape) -> list[tuple[Shape, float, float]]:
        """(shape, mean, standard deviation) of each initial parameter; a linear layer's weight is (in, out)."""
        channels, rank = shape[0], len(shape) - 1
        match self.kind:
            case "conv":
                weight = (self.out, channels // self.groups, *(self.kernel,) * rank)
                return [(weight, 0, math.prod(weight[1:]) ** -0.5), ((self.out,), 0, 0.1)]
            case "conv_transpose":
                weight = (channels, self.out // self.groups, *(self.kernel,) * rank)
                return [(weight, 0, (channels * (self.kernel / self.stride) ** rank) ** -0.5), ((self.out,), 0, 0.1)]
            case "linear":
                return [((channels, self.out), 0, channels**-0.5), ((self.out,), 0, 0.1)]
            case "batch_norm":
                return [((channels,), 1, 0.1), ((channels,), 0, 0.1)]
        return []

    def products(self, shape: Shape) -> int:
        """The number of multiplications for one example; 0 for a layer without a matrix product."""
        if self.kind not in ("conv", "conv_transpose", "linear"):
            return 0
        positions = self.output(shape) if self.kind == "conv" else shape
        return math.prod(self.parameters(shape)[0][0]) * math.prod(positions[1:])

    def title(self, shape: Shape) -> str:
        """The layer in words: "conv 16→32 3×3 on 14×14"."""
        words = [self.kind.replace("_", "-")]
        if self.out:
            words.append(f"{shape[0]}→{self.out}")
        if "conv" in self.kind or self.kind == "max_pool":
            words.append("×".join([str(self.kernel)] * (len(shape) - 1)) if shape[2:] else f"kernel {self.kernel}")
        words += [f"{name} {getattr(self, name)}" for name in ("stride", "dilation", "groups") if self.sets(name)]
        return " ".join(words) + (f" on {'×'.join(map(str, shape[1:]))}" if shape[1:] else "")

    def sets(self, name: str) -> bool:
        """Whether a parameter differs from its default."""
        return getattr(self, name) != (self.kernel if (self.kind, name) == ("max_pool", "stride") else 1)


conv, conv_transpose, linear = (partial(Layer, kind) for kind in ("conv", "conv_transpose", "linear"))
relu, norm, flatten, average, cross_entropy = map(Layer, ("relu", "batch_norm", "flatten", "average", "cross_entropy"))
pool = Layer("max_pool", kernel=2, stride=2)


def residual(*body: Layer) -> Layer:
    """x + body(x)."""
    return Layer("residual", body=body)


def steps(layers: tuple[Layer, ...], shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield (layer, its input shape) in order, with the layers of a residual body in its place."""
    for layer in layers:
        if layer.kind == "residual":
            yield from steps(layer.body, shape)
        else:
            yield layer, shape
        shape = layer.output(shape)


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """Layers for batches of examples (C, *S), and their training; optimizer options have torch's names."""

    shape: Shape
    batch: int
    layers: tuple[Layer, ...]
    optimizer: str = "Adam"
    options: dict[str, float] = field(default_factory=lambda: {"lr": 0.002})
    loss: str = "cross_entropy"
    inner: bool = False  # the input comes from another layer, so its gradient is computed too

    def small(self) -> Net:
        """The same network on few small examples."""
        return replace(self, shape=(self.shape[0], *(n // 8 * 4 for n in self.shape[1:])), batch=min(self.batch, 8))


def conv_norm(out: int, kernel: int, stride: int = 1, **options: Any) -> tuple[Layer, ...]:
    """A convolution that keeps the size (at stride 1), batch norm and ReLU."""
    return conv(out, kernel, stride, padding=kernel // 2, **options), norm, relu


MOMENTUM: dict[str, Any] = {"optimizer": "SGD", "options": {"lr": 0.001, "momentum": 0.9}}
NETS = {
    "lenet": Net(
        (1, 28, 28), 64,
        (conv(16, 5, padding=2), relu, pool, conv(32, 3, padding=1), relu, pool, conv(64, 3), relu, flatten,
         linear(10)),
    ),
    "resnet9": Net(
        (3, 32, 32), 128,
        (*conv_norm(16, 7, 4), *conv_norm(32, 3, 2), residual(*conv_norm(32, 3), *conv_norm(32, 3)),
         *conv_norm(64, 3, 2), *conv_norm(128, 3, 2), residual(*conv_norm(128, 3), *conv_norm(128, 3)),
         flatten, linear(128), relu, linear(10)),
        options={"lr": 0.0002, "weight_decay": 0.001},
    ),
    "vgg": Net(
        (3, 32, 32), 32,
        (conv(64, 3, padding=1), relu, conv(64, 3, padding=1), relu, pool,
         conv(128, 3, padding=1), relu, conv(128, 3, padding=1), relu, pool, flatten, linear(10)),
        **MOMENTUM,
    ),
    "conv1d": Net(
        (16, 1024), 32,
        (conv(32, 9, padding=4), relu, conv(32, 5, padding=4, dilation=2), relu,
         conv(64, 5, padding=8, dilation=4), relu, average, linear(10)),
    ),
    "autoencoder": Net(
        (1, 28, 28), 64,
        (conv(16, 3, 2, padding=1), relu, conv(32, 3, 2, padding=1), relu,
         conv_transpose(16, 4, 2, padding=1), relu, conv_transpose(1, 4, 2, padding=1)),
        loss="mean_squared",
    ),
    "depthwise": Net(
        (32, 16, 16), 64, (*conv_norm(32, 3, groups=32), *conv_norm(64, 1), average, linear(10)), inner=True,
        **MOMENTUM,
    ),
    "blocks": Net(
        (1, 28, 28), 32, (*conv_norm(16, 3), pool, *conv_norm(32, 3), pool, flatten, linear(10)),
    ),
    "cifar": Net(
        (3, 32, 32), 64,
        (*conv_norm(32, 3), *conv_norm(32, 3), pool, *conv_norm(64, 3), *conv_norm(64, 3), pool, flatten, linear(10)),
        options={"lr": 0.0002},  # at 0.002 its losses grow, and with them the differences of rounding
    ),
    "narrow": Net((3, 32, 32), 32, (*conv_norm(16, 3) * 10, average, linear(10)), **MOMENTUM),
}  # fmt: skip

TINY_CNN = Net(
    (1, 28, 28), 64,
    (*conv_norm(16, 3), *conv_norm(32, 3), pool, *conv_norm(64, 3), pool, flatten, linear(10)),
)  # fmt: skip


def tower(batch: int = 32, side: int = 16, channels: int = 32, depth: int = 3) -> Net:
    """A network that can grow in four directions."""
    layers = (conv(channels, 3, padding=1), relu) * depth
    return Net((channels, side, side), batch, (*layers, average, linear(10)), **MOMENTUM)


# ---- work: each instance is one row of a table -----------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What one run of a row does; times are divided by `per`."""

    per = 1
    runs = 1  # number of runs that the proof compares

    @property
    def products(self) -> int:
        """The multiplications of a matrix product, per run; 0 for other work."""
        return 0

    def small(self) -> Work:
        """The same work at a tiny size."""
        return self


@dataclass(frozen=True)
class Training(Work):
    """A training step: forward, loss, backward, optimizer."""

    net: Net
    runs = 5

    def small(self) -> Work:
        return replace(self, net=self.net.small())


@dataclass(frozen=True)
class Inference(Work):
    """Forward under no_grad."""

    net: Net

    def small(self) -> Work:
        return replace(self, net=self.net.small())


@dataclass(frozen=True)
class LayerWork(Work):
    """One layer of a network: `part` is "forward", or names gradients, computed from a recorded graph."""

    net: Net  # this layer alone
    part: str

    @property
    def products(self) -> int:
        return self.net.batch * self.net.layers[0].products(self.net.shape)

    def small(self) -> Work:
        return replace(self, net=replace(self.net, batch=2))


@dataclass(frozen=True)
class Update(Work):
    """A step of Adam for 16 parameters of side × side."""

    side: int = 256

    def small(self) -> Work:
        return Update(16)


@dataclass(frozen=True)
class Product(Work):
    """A matrix product of side × side in float32: sgemm."""

    side: int = 1024

    @property
    def products(self) -> int:
        return self.side**3

    def small(self) -> Work:
        return Product(64)


@dataclass(frozen=True)
class Chain(Work):
    """A chain of `per` elementwise ops on 8 numbers; `part` is "forward", which records the graph, or "gradients"."""

    part: str
    per: int = 1000

    def small(self) -> Work:
        return replace(self, per=20)


@dataclass(frozen=True)
class Loading(Work):
    """An epoch of `per` batches through a loader, from arrays of bytes: flip, shift, normalize, and perhaps rotate."""

    shape: Shape
    rotates: bool = False
    batch: int = 64
    per: int = 30
    padding: int = 2  # the largest shift
    degrees: float = 10.0

    @property
    def draws(self) -> int:
        """The random numbers per image: of the flip, the shift, and the five of an affine map."""
        return 8 if self.rotates else 3

    def small(self) -> Work:
        return replace(self, batch=4, per=2)


@dataclass(frozen=True)
class Import(Work):
    """The import of the library in a fresh process."""


GRADIENTS = {"conv": ("input gradient", "weight gradient"), "batch_norm": ("gradients",), "relu": ("input gradient",)}
GRADIENTS |= dict.fromkeys(("conv_transpose", "linear"), GRADIENTS["conv"])
GRADIENTS |= dict.fromkeys(("max_pool", "cross_entropy"), GRADIENTS["relu"])


def layer_works(name: str, net: Net, seen: set[object]) -> dict[str, Work]:
    """The rows of a network's layers: each new convolution, and the first layer of every other kind.

    `seen` holds what earlier networks contributed and is updated. The first layer of a network has no input gradient
    in training, so it gets no such row.
    """
    rows: dict[str, Work] = {}
    for i, (layer, shape) in enumerate(steps(net.layers, net.shape)):
        alone = Net(shape, net.batch, (layer,), inner=i > 0 or net.inner)
        key = (layer, shape, net.batch) if "conv" in layer.kind else layer.kind
        if layer.kind in GRADIENTS and key not in seen:
            seen.add(key)
            for part in ("forward", *GRADIENTS[layer.kind]):
                if alone.inner or part != "input gradient":
                    rows[f"{name}: {layer.title(shape)}, {part}"] = LayerWork(alone, part)
    return rows


def op_works() -> dict[str, Work]:
    """The rows of single ops."""
    rows: dict[str, Work] = {SGEMM: Product()}
    seen: set[object] = set()
    for name, net in NETS.items():
        rows |= layer_works(name, net, seen)
    rows |= layer_works("loss", Net((10,), 64, (cross_entropy,), inner=True), seen)
    return rows | {"Adam step, a million parameters": Update()}


SGEMM = f"sgemm {Product.side}"
BASE = "as it is"
CASES: dict[str, dict[str, Work]] = {name: {"training step": Training(net)} for name, net in NETS.items()}
CASES["inference"] = {
    f"{name}, batch {batch}": Inference(replace(NETS[name], batch=batch))
    for name in ("lenet", "vgg")
    for batch in (1, 256)
}
CASES["ops"] = op_works()
CASES["overhead"] = {"an op forward": Chain("forward"), "an op forward and backward": Chain("gradients")}
CASES["loops"] = layer_works("textbook", Net((4, 8, 8), 2, (conv(8, 3, padding=1),), inner=True), set())
CASES["growth"] = {
    BASE: Training(tower()), "batch doubled": Training(tower(batch=64)), "side doubled": Training(tower(side=32)),
    "channels doubled": Training(tower(channels=64)), "depth doubled": Training(tower(depth=6)),
}  # fmt: skip
CASES["loader"] = {
    "a batch of 1×28×28: flip, shift, normalize": Loading((1, 28, 28)),
    "a batch of 3×32×32: flip, shift, normalize": Loading((3, 32, 32)),
    "a batch of 1×28×28: and rotate": Loading((1, 28, 28), rotates=True),
    "a training step of TinyCNN, 1×28×28": Training(TINY_CNN),
}
CASES["import"] = {"import": Import()}

NETWORKS = [*NETS, "inference"]
GROUPS = {
    "Networks": [*NETWORKS, "growth"],
    "Single ops": ["ops"],
    "Loaders: batches of 64 images": ["loader"],
    "Overhead, import, and the loops of the textbook": ["overhead", "import", "loops"],
}
ALONE, WORKERS, MPI = "needle, one thread", "needle, workers", "needle, MPI"  # names in the tables of several threads
APART = "needle, apart"  # there: processes that compute their parts of each batch and exchange nothing
CAPTURED = "needle, captured"  # and that of training steps that are captured
MPI_PLAN = "needle, MPI, captured"  # and of ranks whose training steps are
# Libraries with a process for each thread.
DIVIDED = ("needle-workers", "needle-mpi", "needle-mpi-plan", "needle-apart", "torch-ddp")
ON_GPU = {  # name in the tables of --device cuda -> library
    "needle": "needle-cuda",
    CAPTURED: "needle-captured",
    "torch": "torch-cuda",
    "torch, one graph": "torch-graph",
}
RIVALS = {
    "torch": list(CASES),
    "torch-ddp": list(NETS),
    "torch-compile": NETWORKS,
    "torch-batched": ["loader"],
    "mygrad": ["lenet", "conv1d", "overhead", "import"],
    "dezero": ["lenet", "conv1d", "overhead"],
    "loops": ["loops"],
}
