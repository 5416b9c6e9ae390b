"""The official test suite of ONNX backends, run on needle: `onnx.backend.test.runner.BackendTest`.

Cases that needle does not support are expected to fail, so one that passes by now is seen. Models that need the network
are left out. The node cases of a file are built when its test runs, since building all of them takes many seconds.
"""

import importlib
import pkgutil
import re
import unittest
import warnings
from functools import cache

import numpy as np
import pytest
from onnx.backend.test import runner
from onnx.backend.test.case import base, node

from needle.onnx.backend import NeedleBackend

DTYPES = "dtypes that needle does not have: bfloat16, floats of 8 and 4 bits, integers of 4 and 2"

# Patterns of names of cases that needle does not support, each with its reason.
LEFT_OUT = {
    r"_(BFLOAT16|FLOAT8\w+|FLOAT4E2M1|U?INT[24])_(to|expanded|cpu)|_to_(BFLOAT16|FLOAT8|FLOAT4|U?INT[24])": DTYPES,
    r"_bfloat16|_bf16|(quantizelinear)_(e4m3fn|e5m2|u?int[24]|float4e2m1)": DTYPES,
    r"^test_(string_|regex_|strnorm|tfidfvectorizer|equal_string)": "strings",
    r"^test_ai_onnx_ml_label_encoder": "strings, and maps that only ai.onnx.ml has",
    r"^test_(sequence_|split_to_sequence|identity_sequence|if_seq|loop13_seq)": "sequences of tensors",
    r"^test_(optional_|identity_opt|if_opt|loop16_seq_none)": "values that are optional",
    r"^test_gradient_of": "derivatives within a model",
    r"^test_image_decoder": "files of images as values",
    r"^test_ai_onnx_ml_tree_ensemble": "trees, which nothing differentiates",
    r"^test_scan_sum": "Scan of opset 8, which opset 9 replaced: it scans over a batch",
    r"^test_attention_4d_causal_fp16_expanded": "sums of float16 round otherwise, by two units in the last place",
}

# Cases that draw random numbers: no other implementation gives the same.
RANDOM = r"^test_bernoulli"

# Exports that take seconds to build a case, by loops of Python over every window.
SLOW = [("averagepool", "AveragePool", "export_averagepool_3d_default")]
SLOW += [("lppool", "LpPool", "export_lppool_3d_default"), ("maxpool", "MaxPool", "export_maxpool_3d_default")]

FILES = sorted(
    f"{folder}{file.name}"
    for path, folder in ((node.__path__, ""), ([f"{node.__path__[0]}/ai_onnx_ml"], "ai_onnx_ml."))
    for file in pkgutil.iter_modules(path)
    if not file.ispkg
)
KINDS = {"simple": 7, "pytorch-converted": 82, "pytorch-operator": 35}  # how many cases run
NODE_CASES = """
abs 1  acos 2  acosh 2  adagrad 2  adam 2  add 8  affinegrid 8  ai_onnx_ml.array_feature_extractor 1
ai_onnx_ml.binarizer 1  and_ 8  argmax 16  argmin 16  asin 2  asinh 2  atan 2  atanh 2  attention 175  averagepool 19
batch_normalization 4  bitcast 10  bitshift 28  bitwiseand 4  bitwisenot 3  bitwiseor 4  bitwisexor 4
blackmanwindow 4  cast 6  castlike 12  causal_conv_with_state 26  ceil 2  celu 4  center_crop_pad 12  clip 24
col2im 5  compress 4  concat 12  constant 1  constantofshape 3  conv 6  convinteger 2  convtranspose 11  cos 2  cosh 2
cumprod 9  cumsum 9  deformconv 4  depthtospace 4  dequantizelinear 5  det 2  dft 10  div 10  dropout 12
dynamicquantizelinear 6  einsum 6  elu 6  equal 8  erf 1  exp 2  expand 2  eyelike 3  flatten 9  flexattention 22
floor 2  gather 4  gatherelements 3  gathernd 3  gelu 8  gemm 11  globalaveragepool 2  globalmaxpool 2  greater 8
greater_or_equal 16  gridsample 18  groupnormalization 4  gru 6  hammingwindow 4  hannwindow 4  hardmax 7
hardsigmoid 6  hardswish 2  identity 1  if_ 1  instance_normalization 2  isinf 4  isnan 2  layernormalization 57
leakyrelu 6  less 8  less_or_equal 16  linear_attention 28  log 2  logsoftmax 21  loop 1  lpnormalization 6  lppool 7
lrn 2  lstm 6  matmul 7  matmulinteger 1  max 14  maxpool 18  maxunpool 2  mean 3  meanvariancenormalization 3
melweightmatrix 1  min 14  mish 2  mod 19  momentum 3  mul 9  neg 2  negativeloglikelihoodloss 36
nonmaxsuppression 10  nonzero 1  not_ 3  onehot 5  or_ 8  pad 6  pow 12  prelu 4  qlinearconv 1  qlinearmatmul 8
quantizelinear 6  rangeop 6  reciprocal 2  reduce_log_sum 10  reduce_log_sum_exp 18  reducel1 18  reducel2 18
reducemax 11  reducemean 8  reducemin 10  reduceprod 9  reducesum 12  reducesumsquare 18  relu 2  reshape 10
resize 39  reversesequence 2  rmsnormalization 38  rnn 6  roialign 3  rotaryembedding 16  round 1  scan 3  scatter 2
scatterelements 7  scatternd 7  selu 6  shape 11  shrink 4  sigmoid 2  sign 1  sin 2  sinh 2  size 2  slice 8
softmax 21  softmax_cross_entropy_loss 68  softplus 4  softsign 4  spacetodepth 8  split 16  sqrt 2  squeeze 2  stft 2
sub 9  sum 3  swiglu 6  swish 2  tan 2  tanh 2  tensorscatter 3  thresholdedrelu 6  tile 2  topk 7  transpose 7
trilu 18  unique 6  unsqueeze 7  upsample 1  where 2  xor 8
"""  # by file, how many cases of it run
DEVICES = 1 + NeedleBackend.supports_device("CUDA")
WORDS = NODE_CASES.split()
COUNTS = dict(zip(WORDS[::2], map(int, WORDS[1::2]), strict=True))


@cache
def built(file):
    """The cases of a file of the suite, but slow ones; importing it builds them."""
    make = base._Exporter.__init__
    cases, slow = {}, {export for _, _, export in SLOW}

    def make_quick(cls, name, bases, members):
        before = len(node._NodeTestCases)
        make(cls, name, bases, {key: value for key, value in members.items() if key not in slow})
        cases.setdefault(cls.__module__, []).extend(node._NodeTestCases[before:])

    state = np.random.get_state()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the suite expects, it computes with warnings
        patch.setattr(base._Exporter, "__init__", make_quick)
        importlib.import_module(f"{node.__name__}.{file}")
    np.random.set_state(state)
    return cases.get(f"{node.__name__}.{file}", [])


def left_out(name):
    return any(re.search(pattern, name) for pattern in LEFT_OUT)


def passed(wanted, cases):
    """How many cases pass, each device counted, by the official runner; the others must be those left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_model_tests", lambda kind: cases if kind == wanted else [])
        tests = runner.Runner(NeedleBackend, __name__)
    tests.exclude(RANDOM)
    for pattern in LEFT_OUT:
        tests.xfail(pattern)
    result = unittest.TestResult()
    with np.errstate(all="ignore"):  # the suite divides by zero and overflows on purpose
        tests.test_suite.run(result)
    problems = [f"{test}: {text}" for test, text in (*result.failures, *result.errors)]
    assert not problems, "\n".join(problems)
    assert not result.unexpectedSuccesses, "these are left out, but pass"
    for test, why in result.skipped:
        refused = left_out(test.id().rpartition(".")[2]) and why == "Not compatible with backend"
        assert refused or re.search("device CUDA|exclude pattern", why), f"{test} is skipped: {why}"
    return result.testsRun - len(result.skipped) - len(result.expectedFailures)


@pytest.mark.parametrize("file", FILES)
def test_node_cases(file):
    """The cases of a file pass, and as many as ever."""
    assert passed("node", built(file)) == COUNTS.get(file, 0) * DEVICES


def test_enough_node_cases_run():
    assert sum(COUNTS.values()) == 1604


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name", "export"), SLOW)
def test_slow_node_cases(file, name, export):
    built(file)
    before, state = len(node._NodeTestCases), np.random.get_state()
    getattr(getattr(importlib.import_module(f"{node.__name__}.{file}"), name), export)()
    np.random.set_state(state)
    assert passed("node", node._NodeTestCases[before:]) == DEVICES


@pytest.mark.parametrize(("kind", "number"), KINDS.items())
def test_models(kind, number):
    assert passed(kind, runner.load_model_tests(kind=kind)) == number * DEVICES
