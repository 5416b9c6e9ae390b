"""A layer refuses at construction the options that its function refuses, with the same message."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from needle.nn import functional
from tests.nn.functional.alike import raises

X = ndl.ones(2, 3)
LINE = ndl.ones(2, 4, 6)
IMAGE = ndl.ones(1, 4, 6, 6)
VOLUME = ndl.ones(1, 4, 6, 6, 6)
PROBABILITY = (-0.1, 1.5, float("nan"), "a", None)
NUMBER = ("a", None, True)
WINDOW = {
    "kernel_size": (0, -1, 1.5, "a", (2,) * 4), "stride": (0, 1.5, (2,) * 4), "padding": (-1, 0.5, (0,) * 4),
    "ceil_mode": (1, None),
}  # fmt: skip
MAX_WINDOW = WINDOW | {"dilation": (0, 1.5, (1,) * 4), "return_indices": (1, None)}
AVG_WINDOW = WINDOW | {"count_include_pad": (1, None)}
OUTPUT = {"output_size": (0, 1.5, (1,) * 4, None)}
COLUMNS = {"kernel_size": (0, 1.5, (), (2, 0)), "stride": (0, (1,) * 4), "padding": (-1,), "dilation": (0, "a")}

DEFAULTS = {"PixelShuffle": {"upscale_factor": 2}, "PixelUnshuffle": {"downscale_factor": 2}}
DEFAULTS |= {f"AdaptiveAvgPool{rank}d": {"output_size": 2} for rank in (1, 2, 3)}
# layer, its function, operands, options that are needed, bad values of each option
SAME_RULES = [
    ("LeakyReLU", "leaky_relu", (X,), {}, {"negative_slope": NUMBER}),
    ("ELU", "elu", (X,), {}, {"alpha": NUMBER}),
    ("GELU", "gelu", (X,), {}, {"approximate": ("erf", None)}),
    ("CELU", "celu", (X,), {}, {"alpha": (0, *NUMBER)}),
    ("Softshrink", "softshrink", (X,), {}, {"lambd": (-1, *NUMBER)}),
    ("Hardshrink", "hardshrink", (X,), {}, {"lambd": NUMBER}),
    ("Threshold", "threshold", (X,), {"threshold": 1, "value": 1}, {"threshold": NUMBER, "value": NUMBER}),
    ("GLU", "glu", (X,), {}, {"dim": (0.5, "a")}),
    ("Softplus", "softplus", (X,), {}, {"beta": (0, -1, float("nan"), *NUMBER), "threshold": NUMBER}),
    ("Hardtanh", "hardtanh", (X,), {}, {"min_val": NUMBER, "max_val": NUMBER}),
    ("Dropout", "dropout", (X,), {}, {"p": PROBABILITY}),
    ("Dropout1d", "dropout1d", (LINE,), {}, {"p": PROBABILITY}),
    ("Dropout2d", "dropout2d", (IMAGE,), {}, {"p": PROBABILITY}),
    ("Dropout3d", "dropout3d", (VOLUME,), {}, {"p": PROBABILITY}),
    ("CosineSimilarity", "cosine_similarity", (X, X), {}, {"dim": (0.5, "a"), "eps": (-1, *NUMBER)}),
    ("MSELoss", "mse_loss", (X, X), {}, {"reduction": ("median", None)}),
    ("L1Loss", "l1_loss", (X, X), {}, {"reduction": ("median", None)}),
    ("SmoothL1Loss", "smooth_l1_loss", (X, X), {}, {"reduction": ("median",), "beta": (-1, *NUMBER)}),
    ("HuberLoss", "huber_loss", (X, X), {}, {"reduction": ("median",), "delta": (0, -1, *NUMBER)}),
    ("BCELoss", "binary_cross_entropy", (X, X), {}, {"reduction": ("median",)}),
    ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits", (X, X), {}, {"reduction": ("median",)}),
    (
        "CrossEntropyLoss", "cross_entropy", (X, X), {},
        {"reduction": ("median",), "label_smoothing": PROBABILITY, "ignore_index": (0.5, "a")},
    ),
    ("NLLLoss", "nll_loss", (X, [0, 1]), {}, {"reduction": ("median",), "ignore_index": (0.5, "a")}),
    ("KLDivLoss", "kl_div", (X, X), {}, {"reduction": ("median", None), "log_target": (1, None)}),
    (
        "PoissonNLLLoss", "poisson_nll_loss", (X, X), {},
        {"reduction": ("median",), "log_input": (1,), "full": (0,), "eps": (-1, *NUMBER)},
    ),
    (
        "GaussianNLLLoss", "gaussian_nll_loss", (X, X, X), {},
        {"reduction": ("median",), "full": (0,), "eps": (-1, *NUMBER)},
    ),
    ("HingeEmbeddingLoss", "hinge_embedding_loss", (X, X), {}, {"reduction": ("median",), "margin": NUMBER}),
    ("CosineEmbeddingLoss", "cosine_embedding_loss", (X, X, [1, 1]), {}, {"reduction": ("median",), "margin": NUMBER}),
    ("MarginRankingLoss", "margin_ranking_loss", (X, X, X), {}, {"reduction": ("median",), "margin": NUMBER}),
    (
        "MultiMarginLoss", "multi_margin_loss", (X, [0, 1]), {},
        {"reduction": ("median",), "margin": NUMBER, "p": (3, 0, 1.5, None)},
    ),
    ("MultiLabelMarginLoss", "multilabel_margin_loss", (X, [[0, 1, 2]] * 2), {}, {"reduction": ("median",)}),
    ("SoftMarginLoss", "soft_margin_loss", (X, X), {}, {"reduction": ("median",)}),
    ("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss", (X, X), {}, {"reduction": ("median",)}),
    (
        "TripletMarginLoss", "triplet_margin_loss", (X, X, X), {},
        {"reduction": ("median",), "margin": (0, -1, *NUMBER), "p": (0, -1, *NUMBER), "eps": NUMBER, "swap": (1, None)},
    ),
    ("MaxPool1d", "max_pool1d", (LINE,), {"kernel_size": 2}, MAX_WINDOW),
    ("MaxPool2d", "max_pool2d", (IMAGE,), {"kernel_size": 2}, MAX_WINDOW),
    ("MaxPool3d", "max_pool3d", (VOLUME,), {"kernel_size": 2}, MAX_WINDOW),
    ("AvgPool1d", "avg_pool1d", (LINE,), {"kernel_size": 2}, AVG_WINDOW),
    ("AvgPool2d", "avg_pool2d", (IMAGE,), {"kernel_size": 2}, AVG_WINDOW | {"divisor_override": (1.5, "a")}),
    ("AvgPool3d", "avg_pool3d", (VOLUME,), {"kernel_size": 2}, AVG_WINDOW | {"divisor_override": (1.5, "a")}),
    *(
        (
            f"LPPool{rank}d", f"lp_pool{rank}d", (x,), {"norm_type": 2, "kernel_size": 2},
            WINDOW | {"norm_type": (0, float("nan"), *NUMBER), "padding": ()},
        )
        for rank, x in enumerate((LINE, IMAGE, VOLUME), 1)
    ),
    *(
        (
            f"MaxUnpool{rank}d", f"max_unpool{rank}d", (x, x * 0), {"kernel_size": 2},
            WINDOW | {"ceil_mode": ()},
        )
        for rank, x in enumerate((LINE, IMAGE, VOLUME), 1)
    ),
    ("RMSNorm", "rms_norm", (X,), {"normalized_shape": 3}, {"normalized_shape": (0, 1.5, ()), "eps": (-1, "a", True)}),
    (
        "LocalResponseNorm", "local_response_norm", (LINE,), {"size": 2},
        {"size": (0, 1.5), "alpha": NUMBER, "beta": NUMBER, "k": NUMBER},
    ),
    ("AdaptiveAvgPool1d", "adaptive_avg_pool1d", (LINE,), {}, OUTPUT),
    ("AdaptiveAvgPool2d", "adaptive_avg_pool2d", (IMAGE,), {}, OUTPUT),
    ("AdaptiveAvgPool3d", "adaptive_avg_pool3d", (VOLUME,), {}, OUTPUT),
    (
        "AdaptiveMaxPool1d", "adaptive_max_pool1d", (LINE,), {"output_size": 2},
        OUTPUT | {"output_size": ((None,),), "return_indices": (1, None)},
    ),
    ("AdaptiveMaxPool2d", "adaptive_max_pool2d", (IMAGE,), {"output_size": 2}, OUTPUT | {"return_indices": (1, None)}),
    ("AdaptiveMaxPool3d", "adaptive_max_pool3d", (VOLUME,), {"output_size": 2}, OUTPUT | {"return_indices": (1, None)}),
    ("Unfold", "unfold", (IMAGE,), {"kernel_size": 2}, COLUMNS),
    ("Fold", "fold", (X,), {"output_size": 4, "kernel_size": 2}, {"output_size": (0, 1.5, (3,) * 4, ())}),
    ("Fold", "fold", (ndl.ones(1, 16, 9),), {"output_size": 4, "kernel_size": 2}, COLUMNS),
    ("PixelShuffle", "pixel_shuffle", (IMAGE,), {}, {"upscale_factor": (0, 1.5)}),
    ("PixelUnshuffle", "pixel_unshuffle", (IMAGE,), {}, {"downscale_factor": (0, 1.5)}),
    ("Upsample", "interpolate", (IMAGE,), {"size": 2}, {"mode": ("cubic", None)}),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "function", "operands", "needed", "bad"), SAME_RULES)
def test_a_layer_refuses_what_its_function_refuses_in_the_same_words(layer, function, operands, needed, bad, subtests):
    for option, value in ((option, value) for option, values in bad.items() for value in values):
        options = needed | {option: value}
        with subtests.test(f"{option}={value!r}"):
            with pytest.raises((TypeError, ValueError)) as by_function:
                getattr(functional, function)(*operands, **options)
            message = str(by_function.value)
            assert message.startswith(f"{function}: ")
            make, expected = partial(getattr(nn, layer), **options), message.replace(function, layer, 1)
            raises(make, type(by_function.value), expected)


@pytest.mark.parametrize(
    ("layer", "arguments", "options"),
    [
        ("Conv2d", (4, 2, 3), {"stride": (2,), "padding": [1], "dilation": (1,)}),
        ("ConvTranspose2d", (4, 2, 3), {"stride": (2,), "padding": (1,), "output_padding": (1,), "dilation": (1,)}),
        ("MaxPool2d", ((3,),), {"stride": (2,), "padding": (1,), "dilation": (1,)}),
        ("AvgPool2d", ((3,),), {"stride": (2,), "padding": (1,)}),
    ],
)
def test_a_tuple_of_one_size_stands_for_all_axes(layer, arguments, options):
    ours = getattr(nn, layer)(*arguments, **options)
    theirs = getattr(torch.nn, layer)(*arguments, **options)
    theirs.load_state_dict({name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype("float32")
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(ndl.Tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layer", "function", "operands", "needed", "bad"), SAME_RULES)
def test_a_layer_refuses_them_when_they_are_set_later(layer, function, operands, needed, bad, subtests):
    """When they are set, or in the next call; a None may mean the default."""
    for option, value in ((option, value) for option, values in bad.items() for value in values):
        made = getattr(nn, layer)(**DEFAULTS.get(layer, {}) | needed)

        def change_and_call(made=made, option=option, value=value):
            setattr(made, option, value)
            made(*operands)

        with subtests.test(f"{option}={value!r}"), pytest.raises((AttributeError, TypeError, ValueError)):
            change_and_call()


@pytest.mark.parametrize("value", ["a", [], float("nan"), -1, 2])
@pytest.mark.parametrize(
    ("make", "option", "shape"),
    [
        (lambda: nn.RNN(3, 2), "dropout", (5, 4, 3)),
        (lambda: nn.GRU(3, 2, 2), "dropout", (5, 4, 3)),
        (lambda: nn.BatchNorm2d(3), "momentum", (2, 3, 4, 4)),
        (lambda: nn.InstanceNorm2d(3), "momentum", (2, 3, 4, 4)),
    ],
)
def test_a_number_that_is_set_later_is_checked(make, option, shape, value):
    layer = make()
    setattr(layer, option, value)
    with pytest.raises((TypeError, ValueError), match=f"{option} must"):
        layer(ndl.ones(*shape))


@pytest.mark.parametrize("value", ["a", None, [1, 2]])
def test_constant_padding_needs_a_number(value):
    with pytest.raises(TypeError, match=r"^ConstantPad2d: scalar must be a number, but got "):
        nn.ConstantPad2d(1, value)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("nan"))])
def test_hardtanh_needs_an_interval(low, high):
    """As in torch: the function accepts equal ends, the layer does not."""
    message = f"Hardtanh: max_val must lie in ({float(low)}, inf], but got {high}"
    raises(lambda: nn.Hardtanh(low, high), ValueError, message)


def test_layers_keep_the_options_that_they_print():
    """Checking neither turns an integer into a tuple nor fills in a size that is None."""
    assert repr(nn.MaxPool2d(np.int64(2))) == repr(nn.MaxPool2d(2))
    assert nn.MaxPool2d(2).kernel_size == 2
    assert nn.AdaptiveAvgPool2d((None, 3)).output_size == (None, 3)
