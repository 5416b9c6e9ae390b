"""Optimizers: SGD, Adam and AdamW move parameters against their gradients."""

from needle.optim.adam import *
from needle.optim.optimizer import *
from needle.optim.sgd import *
