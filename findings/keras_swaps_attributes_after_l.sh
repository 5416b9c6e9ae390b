#!/usr/bin/env bash
# keras 3.15.1 (on jax 0.10.2): a subclassed model saves its attributes in alphabetical order, and one of them is the
# list `layers`. So a layer whose attribute sorts before "layers" (`age`) is stored under that name, but one that sorts
# after it (`price`, `sigma`), and every layer in a dict, is stored by class and position: `layers/dense`,
# `layers/dense_1`. If the code now creates the same attributes, with the same names, in another order, `load_weights`
# puts the weights of one layer into the other without a word: the outputs for "price" and "size" are exchanged, as are
# those of the layers of a dict, whose keys agree. The same change is harmless for "age" and "cost".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.4.6
cd "$folder"
KERAS_BACKEND=jax JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import h5py
import keras
import numpy as np


class Attributes(keras.Model):
    def __init__(self, names):
        super().__init__()
        for name in names:
            setattr(self, name, keras.layers.Dense(1, name=name))

    def call(self, x):
        return {layer.name: layer(x) for layer in self.layers}


class Dict(keras.Model):
    def __init__(self, names):
        super().__init__()
        self.heads = {name: keras.layers.Dense(1, name=name) for name in names}

    def call(self, x):
        return {name: head(x) for name, head in self.heads.items()}


def outputs(model):
    return {name: round(float(np.asarray(y)[0, 0]), 4) for name, y in sorted(model(np.ones((1, 3), "float32")).items())}


print("keras", keras.__version__, "numpy", np.__version__)
for kind, names, swaps in (
    (Attributes, ["age", "cost"], False),
    (Attributes, ["price", "size"], True),
    (Dict, ["price", "size"], True),
):
    saved, loaded = kind(names), kind(names[::-1])
    before = outputs(saved)
    outputs(loaded)  # builds it
    saved.save_weights("model.weights.h5")
    loaded.load_weights("model.weights.h5")
    after = outputs(loaded)
    paths = []
    with h5py.File("model.weights.h5") as file:
        file.visit(lambda path: paths.append(path) if path.endswith("vars/0") else None)
    print(f"{kind.__name__}: saved {before}, loaded {after}; in the file: {paths}")
    assert before[names[0]] != before[names[1]]
    assert after == (dict(zip(names, [*before.values()][::-1])) if swaps else before)
PYTHON
