"""How each library of the benchmark does what the cases ask for, in its own public names.

benchmark_cases.RIVALS says what a library takes part in; its class has what these cases need. A library is imported
when its class is made.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np

if __package__:  # imported as apps.benchmark_libraries; otherwise the folder apps is on sys.path
    from apps import benchmark_cases as cases
else:
    import benchmark_cases as cases


def blas():
    """NumPy, the library behind its matrix products, and the kernels that this chose."""
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return f"NumPy {np.__version__} with a BLAS that threadpoolctl, which is not installed, would name"
    for pool in threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            chosen = f"kernels: {pool.get('architecture')}, threads: {pool['num_threads']}"
            return f"NumPy {np.__version__} with {pool['internal_api']} {pool['version']} ({chosen})"
    return f"NumPy {np.__version__} with a BLAS that threadpoolctl does not know"


# ---- needle and torch: modules of the same names ---------------------------------------------------------------------


class Modules:
    """What needle and torch share."""

    def modules(self, layers, shape):
        """A module for each layer on examples (C, *S)."""
        nn, found = self.nn, []
        for layer in layers:
            channels, rank = shape[0], len(shape) - 1
            places = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
            match layer.kind:
                case "conv" | "conv_transpose":
                    kind = getattr(nn, f"{'Conv' if layer.kind == 'conv' else 'ConvTranspose'}{rank}d")
                    found.append(kind(channels, layer.out, layer.kernel, groups=layer.groups, **places))
                case "max_pool":
                    found.append(getattr(nn, f"MaxPool{rank}d")(layer.kernel, layer.stride))
                case "average":
                    found += [getattr(nn, f"AdaptiveAvgPool{rank}d")(1), nn.Flatten()]
                case "batch_norm":
                    found.append(getattr(nn, f"BatchNorm{rank}d")(channels))
                case "linear":
                    found.append(nn.Linear(channels, layer.out))
                case "residual":
                    found.append(self.residual(nn.Sequential(*self.modules(layer.body, shape))))
                case "relu":
                    found.append(nn.ReLU())
                case "flatten":
                    found.append(nn.Flatten())
            shape = layer.output(shape)
        return found

    def network(self, layers, shape, arrays):
        """The layers as one function, and its parameters, which begin as `arrays`."""
        model = self.nn.Sequential(*self.modules(layers, shape))
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            self.assign(parameter, array)
        return model, list(model.parameters())

    def loss(self, name):
        return {"cross_entropy": self.nn.CrossEntropyLoss, "mean_squared": self.nn.MSELoss}[name]()

    def leaf(self, x):
        """The same values as an input whose gradient is wanted."""
        x = x.detach()
        x.requires_grad = True
        return x

    def array(self, tensor):
        return tensor.detach().numpy()

    def number(self, loss):
        return loss.item()

    def relu(self, x):
        return x.relu()


class Needle(Modules):
    """This library."""

    def __init__(self):
        import needle as ndl

        self.ndl, self.nn, self.residual, self.no_grad = ndl, ndl.nn, ndl.nn.Residual, ndl.no_grad
        self.tensor = partial(ndl.Tensor, requires_grad=False)

    def about(self):
        return f"needle {self.ndl.__version__} on {blas()}"

    def assign(self, parameter, array):
        parameter.data = self.ndl.Tensor(array.reshape(parameter.shape))

    def optimizer(self, name, parameters, options):
        plain = {"dampening": 0} if name == "SGD" else {}  # torch's rule
        return getattr(self.ndl.optim, name)(parameters, **options, **plain)

    def learn(self, loss, optimizer):
        optimizer.reset_grad()
        loss.backward(create_graph=False)
        optimizer.step()

    def gradients(self, y, leaves, out_grad, keep):
        y.backward(out_grad, create_graph=False, retain_graph=keep)
        return [leaf.grad for leaf in leaves]

    def product(self, a, b):
        return partial(np.matmul, a, b, np.empty_like(a))


class Torch(Modules):
    """PyTorch as it is written (eager), or with its networks compiled."""

    def __init__(self, compiled=False):
        import torch

        self.torch, self.nn, self.no_grad, self.tensor = torch, torch.nn, torch.no_grad, torch.tensor
        self.compiled = compiled

        class Residual(torch.nn.Module):
            def __init__(self, fn):
                super().__init__()
                self.fn = fn

            def forward(self, x):
                return self.fn(x) + x

        self.residual = Residual

    def about(self):
        kernels, mode = self.torch.backends.cpu.get_cpu_capability(), "compiled" if self.compiled else "eager"
        return f"torch {self.torch.__version__} ({mode}, kernels: {kernels}, threads: {self.torch.get_num_threads()})"

    def network(self, layers, shape, arrays):
        model, parameters = super().network(layers, shape, arrays)
        return self.torch.compile(model) if self.compiled else model, parameters

    def assign(self, parameter, array):  # torch keeps the weight of a linear map as (out, in)
        parameter.data = self.torch.tensor(array.T if array.ndim == 2 else array).contiguous()

    def optimizer(self, name, parameters, options):
        return getattr(self.torch.optim, name)(parameters, **options)

    def learn(self, loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def gradients(self, y, leaves, out_grad, keep):
        grads = self.torch.autograd.grad(y, leaves, out_grad, retain_graph=keep)
        return [self.as_here(leaf, grad) for leaf, grad in zip(leaves, grads, strict=True)]

    def as_here(self, leaf, grad):
        """The gradient of a linear map's weight as (in, out): a view."""
        return grad.T if isinstance(leaf, self.nn.Parameter) and grad.ndim == 2 else grad

    def product(self, a, b):
        a, b = self.tensor(a), self.tensor(b)
        return partial(self.torch.mm, a, b, out=self.torch.empty_like(a))


# ---- libraries of functions ------------------------------------------------------------------------------------------


class Functions:
    """A library whose networks are functions, one after another: a method for each kind of layer."""

    def network(self, layers, shape, arrays):
        """The layers as one function, and its parameters, which begin as `arrays`."""
        arrays, functions, parameters = iter(arrays), [], []
        for layer, before in cases.steps(layers, shape):
            own = [self.parameter(next(arrays)) for _ in layer.parameters(before)]
            functions.append(partial(getattr(self, layer.kind), layer, *own))
            parameters += own

        def forward(x):
            for function in functions:
                x = function(x)
            return x

        return forward, parameters

    def array(self, tensor):
        return tensor.data

    def number(self, loss):
        return float(loss.data)


class MyGrad(Functions):
    """MyGrad; it has no optimizers, so Adam is written here in NumPy."""

    def __init__(self):
        import mygrad
        import mygrad.nnet

        self.mg, self.nnet, self.leaf, self.parameter = mygrad, mygrad.nnet, mygrad.tensor, mygrad.tensor
        self.tensor = partial(mygrad.tensor, constant=True)

    def about(self):
        return f"MyGrad {self.mg.__version__} on {blas()}"

    def conv(self, layer, weight, bias, x):
        y = self.nnet.conv_nd(x, weight, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
        return y + bias.reshape(-1, *[1] * (x.ndim - 2))

    def relu(self, *layer_and_x):
        return self.nnet.relu(layer_and_x[-1])

    def max_pool(self, layer, x):
        return self.nnet.max_pool(x, (layer.kernel,) * (x.ndim - 2), layer.stride)

    def flatten(self, layer, x):
        return x.reshape(len(x), -1)

    def average(self, layer, x):
        return x.mean(axis=tuple(range(2, x.ndim)))

    def linear(self, layer, weight, bias, x):
        return x @ weight + bias

    def loss(self, name):
        return {"cross_entropy": lambda x, target: self.nnet.softmax_crossentropy(x, target.data)}[name]

    def optimizer(self, name, parameters, options):
        zeros = [[np.zeros_like(parameter.data) for parameter in parameters] for _ in range(2)]
        return SimpleNamespace(parameters=parameters, zeros=zeros, steps=0, **{"Adam": options}[name])

    def learn(self, loss, optimizer):
        loss.backward()
        optimizer.steps += 1
        size = optimizer.lr * (1 - 0.999**optimizer.steps) ** 0.5 / (1 - 0.9**optimizer.steps)
        for parameter, mean, square in zip(optimizer.parameters, *optimizer.zeros, strict=True):
            mean += 0.1 * (parameter.grad - mean)
            square += 0.001 * (parameter.grad**2 - square)
            parameter.data -= size * mean / (np.sqrt(square) + 1e-8)
            parameter.null_grad()

    def gradients(self, y, leaves, out_grad, keep):
        y.backward(out_grad.data)
        return [self.tensor(leaf.grad) for leaf in leaves]


class DeZero(Functions):
    """DeZero; a 1-d convolution is one over images of height 1, a dilated kernel is spread out by a matrix product.

    Its cross-entropy and averages would compute in float64, so they are composed here of what keeps float32.
    """

    def __init__(self):
        vars(np).setdefault("int", int)  # NumPy had this name when DeZero was written
        import dezero
        import dezero.functions
        import dezero.layers
        import dezero.optimizers

        self.dz, self.F, self.parameter = dezero, dezero.functions, dezero.Parameter

    def about(self):
        from importlib.metadata import version

        return f"DeZero {version('dezero')} on {blas()}"

    def tensor(self, array):
        return self.dz.Variable(array)

    def leaf(self, x):
        return self.dz.Variable(x.data)

    def conv(self, layer, weight, bias, x):
        stride, pad = layer.stride, layer.padding
        if x.ndim == 3:
            x = self.F.reshape(x, (*x.shape[:2], 1, x.shape[2]))
        if weight.ndim == 3:
            out, channels, kernel = weight.shape
            spread = np.eye(layer.dilation * (kernel - 1) + 1, dtype="float32")[:: layer.dilation]
            weight = self.F.matmul(self.F.reshape(weight, (out * channels, kernel)), spread)
            weight, pad = self.F.reshape(weight, (out, channels, 1, -1)), (0, pad)
        return self.F.conv2d(x, weight, bias, stride, pad)

    def relu(self, *layer_and_x):
        return self.F.relu(layer_and_x[-1])

    def max_pool(self, layer, x):
        return self.F.pooling(x, layer.kernel, layer.stride)

    def flatten(self, layer, x):
        return self.F.reshape(x, (len(x), -1))

    def average(self, layer, x):
        x = self.F.reshape(x, (*x.shape[:2], -1))  # its sum over two axes has no backward
        return self.F.sum(x, axis=2) * np.float32(1 / x.shape[2])

    def linear(self, layer, weight, bias, x):
        return self.F.linear(x, weight, bias)

    def loss(self, name):
        def cross_entropy(x, target):
            picked = np.eye(x.shape[1], dtype=x.dtype)[target.data]
            return self.F.sum(self.F.log_softmax(x) * picked) * np.float32(-1 / len(x))

        return {"cross_entropy": cross_entropy}[name]

    def optimizer(self, name, parameters, options):
        model = self.dz.Layer()
        for i, parameter in enumerate(parameters):
            setattr(model, f"parameter{i}", parameter)
        return getattr(self.dz.optimizers, name)(options["lr"]).setup(model)

    def learn(self, loss, optimizer):
        optimizer.target.cleargrads()
        loss.backward()
        optimizer.update()

    def gradients(self, y, leaves, out_grad, keep):
        y.grad = out_grad
        y.backward()
        return [leaf.grad for leaf in leaves]


# ---- the textbook ----------------------------------------------------------------------------------------------------


class Loops:
    """One convolution as the textbook writes it: loops in Python around one multiplication."""

    def about(self):
        return f"plain loops over arrays of NumPy {np.__version__}"

    def convolve(self, x, weight, bias, padding, out_grad, wanted):
        """The result or a gradient of a conv2d with stride 1: (N, C, H, W), (O, C, K, K) -> (N, O, P, P)."""
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        y, x_grad, weight_grad = np.zeros_like(out_grad), np.zeros_like(padded), np.zeros_like(weight)
        y += bias.reshape(-1, 1, 1)
        sizes = (*out_grad.shape, *weight.shape[1:])
        for n, o, p, q, c, i, j in product(*map(range, sizes)):
            if wanted == "forward":
                y[n, o, p, q] += padded[n, c, p + i, q + j] * weight[o, c, i, j]
            elif wanted == "input gradient":
                x_grad[n, c, p + i, q + j] += out_grad[n, o, p, q] * weight[o, c, i, j]
            else:
                weight_grad[o, c, i, j] += out_grad[n, o, p, q] * padded[n, c, p + i, q + j]
        inner = slice(padding, -padding or None)
        return {"forward": y, "input gradient": x_grad[:, :, inner, inner]}.get(wanted, weight_grad)


LIBRARIES = {
    "needle": Needle,
    "torch": Torch,
    "torch-compile": partial(Torch, compiled=True),
    "mygrad": MyGrad,
    "dezero": DeZero,
    "loops": Loops,
}
