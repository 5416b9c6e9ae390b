"""The work that benchmark.py times, done by one library in a process of its own.

    python apps/benchmark_rival.py needle 64 28 perf_counter      # library, batch size, side of an image, clock

benchmark.py starts this script and talks to it in lines of JSON. The first line on stdout says which library is at work
(null: torch is not installed). Each request [case, first, count] on stdin then gets one answer: after `first` runs that
do not count the median time in seconds of `count` that do, or with count 0 the fingerprints of the `first` runs.
"""

import itertools
import json
import sys
import time
from statistics import median
from types import SimpleNamespace

import numpy as np

# ---- what the two libraries call differently -------------------------------------------------------------------------


def needle_side(side):
    from train import TinyCNN

    import needle as ndl

    def model():
        net = TinyCNN(side)
        return net, [*net.features, net.classify]

    def gradients(y, leaves, out_grad):
        y.backward(out_grad, create_graph=False, retain_graph=True)
        return [leaf.grad for leaf in leaves]

    return SimpleNamespace(
        about=f"needle {ndl.__version__} on NumPy {np.__version__} with {blas()}",
        nn=ndl.nn, conv2d=ndl.conv2d, Adam=ndl.optim.Adam, no_grad=ndl.no_grad, model=model, gradients=gradients,
        tensor=lambda array: ndl.Tensor(array, requires_grad=False),
        assign=lambda parameter, array: setattr(parameter, "data", ndl.Tensor(array)),
        reset=lambda optimizer: optimizer.reset_grad(),
        backward=lambda loss: loss.backward(create_graph=False),
    )  # fmt: skip


def torch_side(side):
    import torch
    from torch import autograd, nn

    def block(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    def model():
        layers = [*block(1, 16), *block(16, 32), nn.MaxPool2d(2), *block(32, 64), nn.MaxPool2d(2), nn.Flatten()]
        layers.append(nn.Linear(64 * (side // 4) ** 2, 10))
        return nn.Sequential(*layers), layers

    def assign(parameter, array):  # torch keeps the weight of a linear map as (out, in)
        parameter.data = torch.tensor((array.T if array.ndim == 2 else array).reshape(parameter.shape))

    kernels = torch.backends.cpu.get_cpu_capability()
    return SimpleNamespace(
        about=f"torch {torch.__version__} (eager), threads: {torch.get_num_threads()}, kernels: {kernels}",
        nn=nn, conv2d=nn.functional.conv2d, Adam=torch.optim.Adam, no_grad=torch.no_grad, model=model, assign=assign,
        gradients=lambda y, leaves, out_grad: autograd.grad(y, leaves, out_grad, retain_graph=True),
        tensor=torch.tensor,
        reset=lambda optimizer: optimizer.zero_grad(),
        backward=lambda loss: loss.backward(),
    )  # fmt: skip


def blas():
    """The library behind NumPy's matrix products, and the kernels that it chose."""
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return "a BLAS that threadpoolctl, which is not installed, would name"
    found = [
        f"{pool['internal_api']} {pool['version']}, threads: {pool['num_threads']}, kernels: {pool.get('architecture')}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return "; ".join(found) or "a BLAS that threadpoolctl does not know"


# ---- the work, written once for both ---------------------------------------------------------------------------------


def weights(side):
    """The parameters of TinyCNN, in its order; those of the linear map are (in, out) and (1, out)."""
    draw = np.random.default_rng(0)
    for outputs, inputs in ((16, 1), (32, 16), (64, 32)):
        yield draw.standard_normal((outputs, inputs, 3, 3), "float32") / (9 * inputs) ** 0.5
        yield from (np.zeros(outputs, "float32"), np.ones(outputs, "float32"), np.zeros(outputs, "float32"))
    inputs = 64 * (side // 4) ** 2
    yield draw.standard_normal((inputs, 10), "float32") / inputs**0.5
    yield np.zeros((1, 10), "float32")


def cases(lib, batch, side):
    """What is timed: name -> a function without arguments that returns its result."""

    def make():
        model, layers = lib.model()
        for parameter, array in zip(model.parameters(), weights(side), strict=True):
            lib.assign(parameter, array)
        return model, layers, lib.Adam(model.parameters(), 0.002)

    def step():
        images, labels = next(batches)
        loss = loss_fn(model(images), labels)
        lib.reset(optimizer)
        lib.backward(loss)
        optimizer.step()
        return loss.item()

    def adam():
        twin_optimizer.step()
        return twin_layers[3].weight

    def forward(layer, x):
        with lib.no_grad():
            return layer(x)

    def leaf(x):
        x = x.detach()
        x.requires_grad = True
        return x

    draw = np.random.default_rng(1)
    data = [(draw.standard_normal((batch, 1, side, side), "float32"), draw.integers(0, 10, batch)) for _ in range(8)]
    data = [tuple(map(lib.tensor, pair)) for pair in data]
    batches, loss_fn, (model, _, optimizer) = itertools.cycle(data), lib.nn.CrossEntropyLoss(), make()
    twin, twin_layers, twin_optimizer = make()
    lib.backward(loss_fn(twin(data[0][0]), data[0][1]))
    # Operands come out of the layers before, so that each library meets them in its own memory order, as in training.
    first, first_norm, relu, conv, norm, _, pool = make()[1][:7]
    with lib.no_grad():
        x = relu(first_norm(first(data[0][0])))
        y = conv(x)
        active = relu(norm(y))
        out_grad = lib.conv2d(x, lib.tensor(draw.standard_normal(conv.weight.shape, "float32")), None, 1, 1)
        pooled_grad = pool(out_grad)
    x_leaf, weight_leaf, y_leaf, active_leaf = map(leaf, (x, conv.weight, y, active))
    weight, bias = conv.weight.detach(), conv.bias.detach()
    by_x, by_weight = lib.conv2d(x_leaf, weight, bias, 1, 1), lib.conv2d(x, weight_leaf, bias, 1, 1)
    normed, pooled = norm(y_leaf), pool(active_leaf)
    return {
        "training step": step,
        "conv2d": lambda: forward(conv, x),
        "conv2d, input gradient": lambda: lib.gradients(by_x, [x_leaf], out_grad)[0],
        "conv2d, weight gradient": lambda: lib.gradients(by_weight, [weight_leaf], out_grad)[0],
        "max-pool": lambda: forward(pool, active),
        "max-pool, gradient": lambda: lib.gradients(pooled, [active_leaf], pooled_grad)[0],
        "batch norm": lambda: forward(norm, y),
        "batch norm, its three gradients": lambda: lib.gradients(normed, [y_leaf, norm.weight, norm.bias], out_grad)[0],
        "Adam step": adam,
    }


# ---- answers ---------------------------------------------------------------------------------------------------------


def fingerprint(result):
    """Two sums of a result, by which it is compared between libraries."""
    values = np.ravel(result if isinstance(result, float) else result.detach().numpy()).astype("float64")
    return float(np.abs(values).sum()), float(values @ np.cos(np.arange(values.size)))


def seconds(run, clock):
    """The time that one run takes."""
    start = clock()
    run()
    return clock() - start


def main(library, batch, side, clock):
    """Prepare the work and answer requests until stdin ends."""
    try:
        lib = {"needle": needle_side, "torch": torch_side}[library](side)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("null", flush=True)
        return
    work = cases(lib, batch, side)
    print(json.dumps(lib.about), flush=True)
    for line in sys.stdin:
        name, first, count = json.loads(line)
        if count:
            answer = median([seconds(work[name], clock) for _ in range(first + count)][first:])
        else:
            answer = [fingerprint(work[name]()) for _ in range(first)]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), getattr(time, sys.argv[4]))
