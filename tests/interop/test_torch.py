"""Weights and optimizers from torch and back: the same outputs, gradients and next steps, and what is refused."""

import argparse
import copy
import io
import sys
import zipfile
from itertools import product

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

import needle as ndl
import needle.interop.torch as interop
from needle import nn, optim

pytestmark = pytest.mark.on_cpu
F, TF = nn.functional, torch.nn.functional

# ---- one network in both libraries -----------------------------------------------------------------------------------


class TorchAttention(torch.nn.MultiheadAttention):
    """needle's AttentionLayer."""

    def __init__(self, **sizes):
        super().__init__(8, 2, bias=False, batch_first=True, **sizes)
        self.prenorm_q = torch.nn.LayerNorm(8)
        self.prenorm_k = torch.nn.LayerNorm(self.kdim)
        self.prenorm_v = torch.nn.LayerNorm(self.vdim)

    def forward(self, q, k, v):
        return super().forward(self.prenorm_q(q), self.prenorm_k(k), self.prenorm_v(v), need_weights=False)[0]


def attention(lib, **sizes):
    if lib is torch.nn:
        return TorchAttention(**{name[0] + "dim": size for name, size in sizes.items()})
    return nn.AttentionLayer(8, 2, 4, causal=False, **sizes)


def with_head(lib, body, width):
    return lib.ModuleDict({"body": body, "head": lib.Linear(width, 3)})


def unfolded(lib):
    conv = nn.Conv(2, 4, 3) if lib is nn else torch.nn.Conv2d(2, 4, 3, padding=1)
    return lib.Sequential(conv, lib.BatchNorm2d(4), lib.PReLU(4), lib.Flatten(), lib.Linear(64, 3))


def recurrent_head(net, x):
    return net["head"](net["body"](x)[0][-1])


def run(net, x):
    return net(x)


# name -> (the network of a library, how it is called, the shapes of its inputs)
NETS = {
    "mlp": (lambda lib: lib.Sequential(lib.Linear(6, 6), lib.Tanh(), lib.Linear(6, 3, bias=False)), run, [(5, 6)]),
    "cnn": (
        lambda lib: lib.Sequential(
            lib.Conv2d(2, 4, 3, padding=1, groups=2), lib.BatchNorm2d(4), lib.ReLU(), lib.MaxPool2d(2),
            lib.ConvTranspose2d(4, 2, 2), lib.GroupNorm(1, 2), lib.Flatten(), lib.Linear(18, 3)
        ), run, [(5, 2, 4, 4)],
    ),
    "course": (unfolded, run, [(5, 2, 4, 4)]),
    "lstm": (
        lambda lib: with_head(lib, lib.LSTM(6, 4, num_layers=2, bidirectional=True), 8), recurrent_head, [(3, 5, 6)]
    ),
    "gru": (
        lambda lib: with_head(lib, lib.GRU(6, 4, num_layers=2, bidirectional=True), 8), recurrent_head, [(3, 5, 6)]
    ),
    "rnn": (lambda lib: with_head(lib, lib.RNN(4, 4, bias=False), 4), recurrent_head, [(3, 5, 4)]),
    "packed": (
        lambda lib: with_head(lib, attention(lib), 8), lambda net, x: net["head"](net["body"](x, x, x)[:, 0]),
        [(5, 3, 8)],
    ),
    "separate": (
        lambda lib: with_head(lib, attention(lib, k_features=6, v_features=4), 8),
        lambda net, q, k, v: net["head"](net["body"](q, k, v)[:, 0]), [(5, 3, 8), (5, 2, 6), (5, 2, 4)],
    ),
}  # fmt: skip
RULES = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.9)},
    "Adamax": {},
    "NAdam": {"lr": 0.01},
    "RAdam": {"lr": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.01},
    "Adadelta": {"lr": 0.1},
}


class Twin:
    """A network in one of the libraries, with a batch and an optimizer."""

    def __init__(self, name, lib, rule="SGD"):
        make, self.call, shapes = NETS[name]
        rng = np.random.default_rng(1)
        arrays = [rng.standard_normal(shape) for shape in shapes]
        labels = rng.integers(0, 3, 5)
        self.is_torch = lib is torch.nn
        self.net = make(lib).double()
        tensor = torch.tensor if self.is_torch else ndl.Tensor
        self.inputs, self.labels = [tensor(array) for array in arrays], tensor(labels)
        self.loss = (TF if self.is_torch else F).cross_entropy
        rules = torch.optim if self.is_torch else optim
        self.optimizer = getattr(rules, rule)(self.net.parameters(), **RULES[rule])

    def outputs(self):
        return np.asarray(self.call(self.net, *self.inputs).detach().numpy())

    def gradients(self):
        self.optimizer.zero_grad()
        loss = self.loss(self.call(self.net, *self.inputs), self.labels)
        loss.backward()
        return loss.item()

    def steps(self, count):
        losses = []
        for _ in range(count):
            losses.append(self.gradients())
            self.optimizer.step()
        return losses


@pytest.mark.parametrize("name", NETS)
def test_outputs_and_gradients_are_torchs(name):
    theirs, mine = Twin(name, torch.nn), Twin(name, nn)
    theirs.steps(2)
    interop.load_state_dict(mine.net, theirs.net.state_dict())
    for twin in theirs, mine:  # the running statistics that torch tracked
        twin.net.eval()
    np.testing.assert_allclose(mine.outputs(), theirs.outputs(), rtol=1e-9, atol=1e-12)
    for twin in theirs, mine:
        twin.net.train()
        twin.gradients()
    gradients = copy.deepcopy(mine.net)
    interop.load_state_dict(
        gradients, interop.state_dict(mine.net) | {name: p.grad for name, p in theirs.net.named_parameters()}
    )
    assert len(mine.net.parameters()) == len(gradients.parameters()) > 2
    for own, parameter in zip(gradients.parameters(), mine.net.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), own.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("name", "rule"), [*product(NETS, ["SGD", "Adam"]), *(("mlp", rule) for rule in [*RULES][2:])])
def test_training_goes_on_from_torch_and_back(name, rule):
    theirs, mine = Twin(name, torch.nn, rule), Twin(name, nn, rule)
    theirs.steps(2)
    names = theirs.net.state_dict()
    interop.load_state_dict(mine.net, names)
    interop.load_optimizer_state_dict(mine.net, mine.optimizer, theirs.optimizer.state_dict(), names)
    np.testing.assert_allclose(mine.steps(10), theirs.steps(10), rtol=1e-8)
    back = Twin(name, torch.nn, rule)
    back.net.load_state_dict(interop.as_tensors(interop.state_dict(mine.net)))
    state = interop.optimizer_state_dict(mine.net, mine.optimizer, names)
    back.optimizer.load_state_dict(interop.as_tensors(state))
    np.testing.assert_allclose(back.steps(10), mine.steps(10), rtol=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_a_state_that_goes_there_and_back_is_equal(name):
    mine, other = Twin(name, nn).net, Twin(name, nn).net
    state = interop.state_dict(mine)
    theirs = Twin(name, torch.nn).net.state_dict()
    assert {key: array.shape for key, array in state.items()} == {key: tuple(t.shape) for key, t in theirs.items()}
    interop.load_state_dict(other, state)
    for key, value in mine.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key].numpy(), value.numpy())
    assert all(array.flags.c_contiguous and array.flags.owndata for array in state.values())


@pytest.mark.parametrize(
    ("make", "twin"),
    [
        (lambda: nn.Embedding(5, 3), lambda: torch.nn.Embedding(5, 3)),
        (lambda: nn.Conv1d(2, 4, 3), lambda: torch.nn.Conv1d(2, 4, 3)),
        (lambda: nn.ConvTranspose3d(2, 4, 3), lambda: torch.nn.ConvTranspose3d(2, 4, 3)),
        (lambda: nn.BatchNorm3d(2), lambda: torch.nn.BatchNorm3d(2)),
        (lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
         lambda: torch.nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
        (lambda: nn.RMSNorm(4), lambda: torch.nn.RMSNorm(4)),
        (lambda: nn.LayerNorm1d(4), lambda: torch.nn.LayerNorm(4)),
        (lambda: nn.PReLU(3), lambda: torch.nn.PReLU(3)),
        (lambda: nn.RNNCell(3, 3), lambda: torch.nn.RNNCell(3, 3)),
        (lambda: nn.LSTMCell(3, 2), lambda: torch.nn.LSTMCell(3, 2)),
        (lambda: nn.GRUCell(3, 2), lambda: torch.nn.GRUCell(3, 2)),
        (lambda: nn.ParameterList([ndl.ones(2), ndl.zeros()]),
         lambda: torch.nn.ParameterList([torch.ones(2), torch.zeros(())])),
        (lambda: nn.CrossEntropyLoss(ndl.ones(2)), lambda: torch.nn.CrossEntropyLoss(torch.ones(2))),
    ],
)  # fmt: skip
def test_names_and_shapes_of_other_layers_are_torchs(make, twin):
    layer, theirs = make(), twin().state_dict()
    assert {key: x.shape for key, x in interop.state_dict(layer).items()} == {
        k: tuple(x.shape) for k, x in theirs.items()
    }
    interop.load_state_dict(layer, theirs)
    for key, array in interop.state_dict(layer).items():
        np.testing.assert_array_equal(array, theirs[key].numpy())


# ---- forms of values and files ---------------------------------------------------------------------------------------

WEIGHT = np.arange(6.0).reshape(2, 3) / 4


def strided(array):
    """The same values in every second column of a larger array, backwards in memory."""
    wide = np.zeros((2, 6))
    wide[:, ::-2] = array
    return wide[:, ::-2]


@pytest.mark.parametrize(
    "form",
    [
        torch.tensor,
        lambda w: torch.tensor(w, dtype=torch.bfloat16),
        lambda w: torch.nn.Parameter(torch.tensor(w).half()),
        lambda w: torch.tensor(w).T.contiguous().T,
        lambda w: w.astype(">f4"),
        lambda w: w.astype("f2"),
        lambda w: w.astype(ml_dtypes.bfloat16),
        strided,
        np.asfortranarray,
    ],
)
def test_values_of_every_form_are_read_right(form):
    layer = nn.Linear(3, 2, bias=False)
    interop.load_state_dict(layer, {"weight": form(WEIGHT)})
    assert layer.weight.dtype == "float32"
    np.testing.assert_array_equal(layer.weight.numpy(), WEIGHT.T)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".PTH"])
def test_files_go_both_ways(tmp_path, ending):
    mine, other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = tmp_path / f"weights{ending}"
    interop.save(path, interop.state_dict(mine))
    loaded = safetensors.torch.load_file(path) if ending == ".safetensors" else torch.load(path, weights_only=True)
    theirs.load_state_dict(loaded)
    if ending == ".safetensors":
        safetensors.torch.save_file({name: x.bfloat16() for name, x in theirs.state_dict().items() if x.ndim}, path)
        halves = {name: x.bfloat16().float() for name, x in theirs.state_dict().items() if x.ndim}
    else:
        torch.save(theirs.state_dict(), path)
        halves = theirs.state_dict()
    interop.load_state_dict(other, path)
    for name, array in interop.state_dict(other).items():
        if name in halves:
            np.testing.assert_array_equal(array, halves[name].numpy())


def test_a_checkpoint_of_a_run_goes_through_a_file(tmp_path):
    """Model and optimizer in one file of torch's, read without torch's model at hand."""
    theirs, mine = Twin("lstm", torch.nn, "Adam"), Twin("lstm", nn, "Adam")
    theirs.steps(1)
    path = tmp_path / "run.pt"
    torch.save({"model": theirs.net.state_dict(), "optimizer": theirs.optimizer.state_dict(), "epoch": 3}, path)
    run = interop.read(path)
    assert run["epoch"] == 3
    interop.load_state_dict(mine.net, run["model"])
    interop.load_optimizer_state_dict(mine.net, mine.optimizer, run["optimizer"], run["model"])
    np.testing.assert_allclose(mine.steps(3), theirs.steps(3), rtol=1e-9)
    interop.save(path, {"model": interop.state_dict(mine.net), "losses": [1.5, None], "shape": (2, 3)})
    back = torch.load(path, weights_only=True)
    assert back["losses"] == [1.5, None]
    assert back["shape"] == (2, 3)
    assert isinstance(back["model"]["head.weight"], torch.Tensor)


def test_a_small_file_does_not_unfold(tmp_path):
    """What is shared in a file of torch's is shared here: lists in lists, cycles, views, also of bfloat16."""
    path = tmp_path / "run.pt"
    laughs = [torch.ones(1)]
    for _ in range(60):
        laughs = [laughs, laughs]
    cycle = {"text": "x"}
    cycle["again"] = cycle
    half = torch.arange(4).bfloat16()
    shared = {"whole": half, "part": half[1::2], "wide": half[2].expand(10**6, 10**6), "none": half[:0]}
    torch.save({"laughs": laughs, "cycle": cycle, **shared}, path)
    state = interop.read(path)
    assert state["laughs"][0] is state["laughs"][1]
    assert state["cycle"]["again"]["again"] is state["cycle"]
    assert [state[name].tolist() for name in ("whole", "part", "none")] == [[0, 1, 2, 3], [1, 3], []]
    assert state["wide"].shape == (10**6, 10**6)
    assert state["wide"][5, 7] == 2
    state["whole"][3] = 7
    assert state["part"].tolist() == [1, 7]


def test_a_file_for_a_gpu_is_read_without_one(tmp_path):
    text = pickled({"w": torch.arange(4.0)})
    path = tmp_path / "gpu.pt"
    with zipfile.ZipFile(io.BytesIO(text)) as source, zipfile.ZipFile(path, "w") as archive:
        for info in source.infolist():
            archive.writestr(info.filename, source.read(info).replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0"))
    assert b"cuda:0" in path.read_bytes()
    assert interop.read(path)["w"].tolist() == [0, 1, 2, 3]


def test_what_torch_does_not_unpickle_is_named(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"options": argparse.Namespace(lr=1), "w": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace \(save the state_dict\(\) alone, or") as caught:
        interop.read(path)
    assert "\n" not in str(caught.value)
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert interop.read(path)["options"].lr == 1


# ---- names -----------------------------------------------------------------------------------------------------------


def test_wrappers_of_torch_are_looked_through():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    mine = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    wrapped = torch.nn.DataParallel(theirs).state_dict()
    compiled = {name.replace("0.", "0._orig_mod.", 1): x for name, x in wrapped.items()}  # torch.compile(theirs[0])
    assert next(iter(compiled)) == "module.0._orig_mod.weight"
    interop.load_state_dict(mine, compiled)
    np.testing.assert_array_equal(mine[0].weight.numpy(), theirs[0].weight.detach().numpy().T)
    own = nn.ModuleDict({"module": nn.Linear(3, 2)})  # a child of that name stays
    interop.load_state_dict(own, {f"module.{name}": x for name, x in theirs[0].state_dict().items()})


def test_a_tied_parameter_may_have_one_name():
    def tied():
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        return net

    state = interop.state_dict(tied())
    other = tied()
    interop.load_state_dict(other, {name: x for name, x in state.items() if name != "0.weight"})
    np.testing.assert_array_equal(interop.state_dict(other)["0.weight"], state["0.weight"])
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one parameter, not two"):
        interop.load_state_dict(other, state | {"1.weight": state["1.weight"] + 1})
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).float()
    theirs[1].weight = theirs[0].weight
    rule = torch.optim.SGD(theirs.parameters(), momentum=0.9)
    theirs(torch.ones(1, 3)).sum().backward()
    rule.step()
    mine = optim.SGD(other.parameters())
    interop.load_optimizer_state_dict(other, mine, rule.state_dict(), theirs.state_dict())
    np.testing.assert_array_equal(mine.state_dict()["state"][0]["momentum_buffer"], theirs[0].weight.grad.numpy().T)


def test_older_states_lack_the_count_of_batches():
    norm = nn.BatchNorm1d(2)
    state = {name: x for name, x in interop.state_dict(norm).items() if name != "num_batches_tracked"}
    interop.load_state_dict(norm, state | {"weight": np.array([3.0, 4.0])})
    assert norm.weight.numpy().tolist() == [3, 4]


def test_projections_may_have_the_names_of_needle():
    """A model of torch that is built as needle's layer is."""
    layer = nn.AttentionLayer(4, 2, 2)
    state = {name: x.numpy().T for name, x in layer.state_dict().items()}
    other = nn.AttentionLayer(4, 2, 2)
    interop.load_state_dict(other, state)
    np.testing.assert_array_equal(other.k_projection.weight.numpy(), layer.k_projection.weight.numpy())
    assert "q_projection.weight" in interop.state_dict(nn.AttentionLayer(4, 2, 3))  # fits no MultiheadAttention


def test_groups_and_frozen_parameters_keep_their_places():
    """torch's optimizer has weights first, then biases, and one layer is frozen."""
    theirs = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(3))).double()
    mine = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))).double()
    interop.load_state_dict(mine, theirs.state_dict())
    rules = [
        torch.optim.Adam([{"params": [layer.weight for layer in theirs[1:]], "lr": 0.1}, {"params": [theirs[2].bias]}]),
        optim.Adam([{"params": [layer.weight for layer in mine][:0:-1]}, {"params": mine[2].bias}]),
    ]
    named = torch.optim.Adam([("2.bias", theirs[2].bias)])
    (theirs(torch.ones(2, 3).double()) ** 2).sum().backward()
    for rule in rules[0], named:
        rule.step()
    state = rules[0].state_dict()
    interop.load_optimizer_state_dict(mine, rules[1], state, theirs.state_dict())
    own = rules[1].state_dict()
    assert [group["lr"] for group in own["param_groups"]] == [0.1, 0.001]
    np.testing.assert_array_equal(own["state"][0]["exp_avg"], state["state"][1]["exp_avg"].numpy().T)
    back = interop.optimizer_state_dict(mine, rules[1], theirs.state_dict())
    for i in range(3):
        np.testing.assert_array_equal(back["state"][i]["exp_avg"], state["state"][i]["exp_avg"].numpy())
    assert [group["param_names"] for group in back["param_groups"]] == [["1.weight", "2.weight"], ["2.bias"]]
    interop.load_optimizer_state_dict(mine, optim.Adam([mine[2].bias]), named.state_dict())


def test_options_that_the_libraries_keep_otherwise():
    """Numbers of torch may be tensors; the dampening of needle's SGD may follow its momentum."""
    made = []
    layer, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    names = [*interop.state_dict(layer)]
    rule = optim.SGD(layer.parameters())
    state = torch.optim.SGD(theirs.parameters(), lr=torch.tensor(0.25), momentum=0.5).state_dict()
    interop.load_optimizer_state_dict(layer, rule, state, names)
    assert rule.state_dict()["param_groups"][0]["lr"] == 0.25
    load_optimizer(
        lambda state: state["state"][0].update(step=3), make=lambda params: made.append(optim.Adam(params)) or made[0]
    )
    assert [made[0].state_dict()["state"][i]["step"] for i in range(2)] == [3, 1]
    for nesterov, dampening in [(False, 0.5), (True, 0.0)]:
        rule = optim.SGD(layer.parameters(), momentum=0.5, nesterov=nesterov)
        assert interop.optimizer_state_dict(layer, rule, names)["param_groups"][0]["dampening"] == dampening


# ---- refusals --------------------------------------------------------------------------------------------------------


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def load(**changed):
    """Load the state of a network with some values changed, named with _ for dots; None leaves one out."""
    state = interop.state_dict(net()) | {name.replace("_", ".", 1): value for name, value in changed.items()}
    interop.load_state_dict(net(), {name: value for name, value in state.items() if value is not None})


def load_optimizer(change=lambda state: state, names="all", make=optim.Adam, groups=lambda layer: layer.parameters()):
    """Load the state of torch's Adam of a Linear(3, 2) after a step."""
    theirs, layer = torch.nn.Linear(3, 2), nn.Linear(3, 2)
    rule = torch.optim.Adam(theirs.parameters())
    theirs(torch.ones(1, 3)).sum().backward()
    rule.step()
    state = rule.state_dict()
    change(state)
    names = theirs.state_dict() if names == "all" else names
    interop.load_optimizer_state_dict(layer, make(groups(layer)), state, names)


def without_torch(call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        call()


def written(content, ending=".pt"):
    """A file with this content; the folder is removed with the process's temporary files."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(content)
        file.flush()
        interop.read(file.name)


def pickled(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rezipped(compression, again=1):
    """A file of torch's with its records written anew, and so often in the list at the end."""
    source, buffer = zipfile.ZipFile(io.BytesIO(pickled({"w": torch.zeros(1000)}))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for info in source.infolist():
            archive.writestr(info.filename, source.read(info))
        archive.filelist *= again
    return buffer.getvalue()


AGREE = "load_state_dict: names, shapes and kinds must agree, but got "
# fmt: off
ERRORS = [
    (lambda: load(**{"0_weight": np.ones((3, 2)), "0_bias": None, "1_weight": np.ones(2, "i1"), "1_more": np.ones(3),
                     "1_num_batches_tracked": np.ones(()), "1_bias": 3}), ValueError,
     AGREE + "missing 0.bias (2,); 0.weight has shape (2, 3), not (3, 2); 1.weight holds floating-point, not int8; "
     "1.bias is a int, not an array; 1.num_batches_tracked holds integers, not float64; unexpected 1.more (3,)"),
    (lambda: load(**{"0_weight": None, "0_parametrizations.weight.original0": torch.ones(2)}), ValueError,
     AGREE + "missing 0.weight (2, 3); unexpected 0.parametrizations.weight.original0 (2,) (first "
     "remove_parametrizations in torch)"),
    (lambda: load(**{"0_weight": ndl.ones(2, 3)}), ValueError,
     AGREE + "0.weight is a tensor of needle, in its own layout: model.load_state_dict takes it"),
    (lambda: load(**{"0_weight_g": torch.ones(2)}), ValueError,
     AGREE + "unexpected 0.weight_g (2,) (first torch.nn.utils.remove_weight_norm in torch)"),
    (lambda: load(**{"0_weight": torch.ones(2, 3).to_sparse()}), ValueError, None),
    (lambda: load(**{"0_weight": torch.ones(2, 3, device="meta")}), ValueError, None),
    (lambda: load(**{"0_weight": torch.ones(2, 3, dtype=torch.complex64)}), ValueError,
     AGREE + "0.weight holds floating-point, not complex64"),
    (lambda: interop.load_state_dict(nn.ReLU(), {"model": {"weight": torch.ones(1)}}), ValueError,
     AGREE + "unexpected model dict (a state inside of the state: pass that, as state['model'])"),
    (lambda: interop.load_state_dict(torch.nn.ReLU(), {}), TypeError,
     "load_state_dict: model must be a Module, but got ReLU"),
    (lambda: interop.state_dict(torch.nn.ReLU()), TypeError, "state_dict: model must be a Module, but got ReLU"),
    (lambda: interop.load_state_dict(nn.ReLU(), [1]), TypeError, "load_state_dict: state must be a path, but got list"),
    (lambda: load(**{"0_parametrizations": {}, "0__extra_state": {"scale": torch.ones(1)}}), ValueError,
     AGREE + "unexpected 0.parametrizations dict; unexpected 0._extra_state dict (what torch's layer keeps besides: "
     "leave it out)"),
    (lambda: interop.load_state_dict(nn.ReLU6(), {"module._orig_mod.a": 1, "module.a": 1}), ValueError,
     "load_state_dict: names must differ without torch's prefixes, but got a twice"),
    (lambda: interop.load_state_dict(nn.Linear(1, 1), {0: 1, "n": 2, "net.weight": np.ones((1, 1)), "net.bias": 3}),
     ValueError, AGREE + "missing weight (1, 1); missing bias (1,); unexpected 0 int; unexpected n int; unexpected "
     "net.weight (1, 1); unexpected net.bias int; all names are there behind 'net.': pass those without it"),
    # ---- files
    (lambda: interop.read("weights.h5"), ValueError,
     "read: path must end in .safetensors, .pt, .pth, .bin, .ckpt, but got 'weights.h5'"),
    (lambda: interop.save("weights", {}), ValueError,
     "save: path must end in .safetensors, .pt, .pth, .bin, .ckpt, but got 'weights'"),
    (lambda: interop.read("absent.pt"), FileNotFoundError,
     "read: path must be a file that can be read, but absent.pt: No such file or directory"),
    (lambda: written(b"garbage"), ValueError, None),
    (lambda: written(pickled(torch.nn.Linear(1, 1))), ValueError, None),
    (lambda: written(pickled([1])), ValueError, None),
    (lambda: written(rezipped(zipfile.ZIP_DEFLATED)), ValueError, None),
    (lambda: written(rezipped(zipfile.ZIP_STORED, again=2)), ValueError, None),
    (lambda: written(pickled({"w": torch.ones(2).conj()._neg_view()})), ValueError, None),
    (lambda: without_torch(lambda: interop.read("weights.pt")), ImportError, None),
    # ---- optimizers
    (lambda: load_optimizer(names=None), ValueError,
     "load_optimizer_state_dict: names must be given, as the state dict of torch's model, but the state has none"),
    (lambda: load_optimizer(names=["weight", "other"]), ValueError,
     ("load_optimizer_state_dict: names must be those of the parameters of the optimizer, but got unknown other; "
      "none for 1")),
    (lambda: load_optimizer(names=["weight", "bias", "other"]), ValueError,
     "load_optimizer_state_dict: names must be those of the parameters of the optimizer, but got unknown other"),
    (lambda: load_optimizer(groups=lambda layer: [layer.weight]), ValueError,
     "load_optimizer_state_dict: groups must have as many parameters as the optimizer's, [1], but got [2]"),
    (lambda: load_optimizer(lambda state: state["state"][0].update(exp_avg=torch.ones(3, 2))), ValueError,
     ("load_optimizer_state_dict: the state must fit the parameters, but got exp_avg of weight of shape (3, 2), "
      "not (2, 3)")),
    (lambda: load_optimizer(lambda state: state["state"][0].update(exp_avg=torch.ones(2, 3, device="meta"))),
     ValueError, None),
    (lambda: load_optimizer(lambda state: state["state"][0].update(exp_avg=torch.ones(2, 3).cfloat())), ValueError,
     ("load_optimizer_state_dict: the state must fit the parameters, but got exp_avg of weight of dtype complex64, "
      "not floating-point")),
    (lambda: load_optimizer(lambda state: state["param_groups"][0].update(param_names=3), names=None), ValueError,
     "load_optimizer_state_dict: names must be given, as the state dict of torch's model, but the state has none"),
    (lambda: load_optimizer(lambda state: state["param_groups"][0].update(lr=torch.ones((), device="meta"))),
     ValueError,
     ("load_optimizer_state_dict: the state must fit the parameters, but got lr: Cannot copy out of meta tensor; "
      "no data!")),
    (lambda: load_optimizer(lambda state: state["param_groups"][0].update(lr=torch.ones(2))), TypeError,
     "Adam: lr must be a number, but got tensor([1., 1.])"),
    (lambda: load_optimizer(lambda state: state["param_groups"][0].update(param_names=["bias", "weight"])), ValueError,
     "load_optimizer_state_dict: the state must fit the parameters, but got a group of bias, weight"),
    (lambda: load_optimizer(lambda state: state["state"][0].pop("exp_avg")), ValueError,
     "load_state_dict: the state must fit the optimizer, but got no exp_avg for parameter 0"),
    (lambda: interop.optimizer_state_dict(nn.ReLU(), 1, []), TypeError,
     "optimizer_state_dict: optimizer must be a Optimizer, but got int"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    if text is not None:
        assert str(caught.value) == text
    assert ", but " in str(caught.value)


@pytest.mark.parametrize(("error", "told"), [(RuntimeError("why\nand more"), "why"), (EOFError(), "EOFError")])
def test_errors_of_torch_are_told_in_one_line(monkeypatch, error, told):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(ValueError, match=rf"by torch\.save, but .*\.pt: {told}$"):
        written(b"")


def test_a_part_of_a_packed_array_in_another_group_is_refused():
    layer = nn.AttentionLayer(4, 2, 2)
    names = [*interop.state_dict(layer)]
    rule = optim.SGD([{"params": [layer.q_projection.weight]}, {"params": layer.parameters()[-1:]}])
    with pytest.raises(ValueError, match=r"in_proj_weight for parts of several groups"):
        interop.optimizer_state_dict(layer, rule, names)


def test_nothing_changes_when_something_does_not_fit():
    model = net()
    before = interop.state_dict(model)
    with pytest.raises(ValueError, match="unexpected more"):
        interop.load_state_dict(model, {name: array + 1 for name, array in before.items()} | {"more": np.ones(1)})
    for name, array in interop.state_dict(model).items():
        np.testing.assert_array_equal(array, before[name])
    made = []
    with pytest.raises(ValueError, match="exp_avg of bias"):
        load_optimizer(
            lambda state: state["state"][1].update(exp_avg=torch.ones(3)),
            make=lambda params: made.append(optim.Adam(params, lr=0.5)) or made[0],
        )
    assert made[0].lr == 0.5
    assert made[0].state_dict()["state"] == {}
