"""Text for language models: batches in order, and the state that goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import needle as ndl
from needle import nn

__all__ = ["CarriedState", "Text"]

Batch = tuple[ndl.Tensor, ndl.Tensor]  # words (S, B) and next words (S·B,)


class Text:
    """Batches of the ids (n, B) that `batchify` returns: words (S, B), S <= `seq_len`, and the next words (S·B,)."""

    def __init__(self, data: np.ndarray, seq_len: int = 40, device: Any = None, dtype: str = "float32") -> None:
        self.data, self.seq_len, self.device, self.dtype = data, seq_len, device, dtype

    def __len__(self) -> int:
        """The number of batches: the last one may have fewer rows."""
        return -(-(len(self.data) - 1) // self.seq_len)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.data) - 1, self.seq_len):
            yield ndl.data.get_batch(self.data, start, self.seq_len, device=self.device, dtype=self.dtype)


class CarriedState:
    """Calls a language model with its state after the batch before: (model, (words, next words)) -> (logits, targets).

    The state is detached: gradients stop at a batch's start (truncated backpropagation through time). It is None at
    first and after `reset`, and part of a checkpoint, since a run may stop in the middle of a text.
    """

    def __init__(self, device: ndl.BackendDevice | None = None) -> None:
        self.device = device
        self.state: Any = None

    def __call__(self, model: nn.Module, batch: Batch) -> Batch:
        words, next_words = batch
        logits, state = model(words, self.state)
        self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        return logits, next_words

    def reset(self) -> None:
        """Begin a text."""
        self.state = None

    def state_dict(self) -> dict[str, Any]:
        """The arrays of the state: none, one, or the two of an LSTM."""
        parts = () if self.state is None else self.state if isinstance(self.state, tuple) else (self.state,)
        return {"parts": [part.numpy() for part in parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        parts = tuple(ndl.Tensor(part, device=self.device, requires_grad=False) for part in state["parts"])
        self.state = parts if len(parts) > 1 else parts[0] if parts else None
