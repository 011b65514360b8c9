"""Recurrent networks over sequences of vectors: LSTM and GRU, with every layer's states at hand, without padding.

``reset=True`` gives the control of a recurrent model: the same cells and weights, but the state is set back to zero
before every step, so that nothing is carried from one step to the next.

Initialisation: every gate's two matrices are Xavier uniform (Glorot and Bengio 2010), biases 0, but 1 for an LSTM's
forget gate (Jozefowicz et al. 2015), so that it remembers before it has learned to.

Legend: B sequences, T steps, N steps of all sequences laid end to end, D width of the input, H width of the states.
"""

from __future__ import annotations

from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from nextvec.nn.backbones.attention import places_of
from nextvec.types import InputError, Ragged, did_you_mean

__all__ = ["Recurrent"]

_KINDS: dict[str, tuple[type[nn.LSTM] | type[nn.GRU], int]] = {"lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3)}
"""Name -> (PyTorch's module, how many gates its stacked matrices hold)."""


class Recurrent(nn.Module):
    """``layers`` layers of ``kind`` "lstm" or "gru", each H = ``width`` wide, over vectors of width ``inputs``.

    dropout: of the states that go from one layer to the next; reset: no state is carried between steps. Every
    sequence begins with a state of zeros.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        kind: str = "lstm",
        layers: int = 1,
        dropout: float = 0.0,
        reset: bool = False,
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise InputError(f"recurrent kind={kind!r}; expected lstm or gru{did_you_mean(kind, _KINDS)}")
        if min(inputs, width, layers) < 1:
            raise InputError(f"inputs={inputs}, width={width}, layers={layers}: expected at least 1 of each")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout}: expected at least 0 and below 1")
        self.inputs, self.width, self.reset = inputs, width, reset
        cell, gates = _KINDS[kind]
        # One module per layer: PyTorch's stacked modules give the last layer's states only.
        self.layers = nn.ModuleList(cell(inputs if i == 0 else width, width, batch_first=True) for i in range(layers))
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.chunk(gates):
                    nn.init.xavier_uniform_(gate)
        if kind == "lstm":
            for name, parameter in self.named_parameters():
                if "bias_ih" in name:  # stacked: input, forget, cell, output
                    nn.init.ones_(parameter[width : 2 * width])

    @overload
    def forward(self, inputs: Tensor | Ragged, *, all_states: Literal[False] = ...) -> Tensor: ...

    @overload
    def forward(self, inputs: Tensor | Ragged, *, all_states: Literal[True]) -> list[Tensor]: ...

    def forward(self, inputs: Tensor | Ragged, *, all_states: bool = False) -> Tensor | list[Tensor]:
        """States [B, T, H] of the last layer for inputs [B, T, D], or [N, H] for a Ragged of [N, D].

        all_states: return the states of every layer instead, first layer first. Raises InputError for shapes that do
        not fit and for an empty sequence.
        """
        values = inputs.values if isinstance(inputs, Ragged) else inputs
        if values.ndim != (2 if isinstance(inputs, Ragged) else 3) or values.shape[-1] != self.inputs:
            expected = f"[N, {self.inputs}] end to end" if isinstance(inputs, Ragged) else f"[B, T, {self.inputs}]"
            raise InputError(f"vectors of shape {list(values.shape)}; expected {expected}")
        if not values.numel() or (isinstance(inputs, Ragged) and int(inputs.lengths.min()) < 1):
            raise InputError("an empty sequence: at least one sequence, and one step in each, is needed")
        if self.reset:
            # A step whose state is reset is a sequence of its own, of length 1.
            states = self._run(values.reshape(-1, 1, self.inputs))
            states = [state.reshape(*values.shape[:-1], self.width) for state in states]
        elif isinstance(inputs, Ragged):
            states = self._run_ragged(inputs)
        else:
            states = self._run(values)
        return states if all_states else states[-1]

    def _run(self, x: Tensor) -> list[Tensor]:
        states: list[Tensor] = []
        for layer in self.layers:
            x = layer(self.dropout(x) if states else x)[0]
            states.append(x)
        return states

    def _run_ragged(self, inputs: Ragged) -> list[Tensor]:
        """Equal lengths as a plain tensor; else PyTorch's packed form, longest sequence first: all first steps, then
        all second steps, ..."""
        lengths, values = inputs.lengths, inputs.values
        if int(lengths.min()) == int(lengths.max()):
            states = self._run(values.view(len(lengths), -1, self.inputs))
            return [state.reshape(-1, self.width) for state in states]
        rank = torch.empty_like(lengths)
        rank[torch.argsort(lengths, descending=True, stable=True)] = torch.arange(len(lengths))
        place = places_of(lengths)
        order = torch.argsort(place * len(lengths) + torch.repeat_interleave(rank, lengths))
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        order, inverse = order.to(values.device), inverse.to(values.device)
        sizes = torch.bincount(place)  # how many sequences have a t-th step
        data = values.index_select(0, order)
        states = []
        for layer in self.layers:
            packed = PackedSequence(self.dropout(data) if states else data, sizes)
            data = cast("PackedSequence", layer(packed)[0]).data
            states.append(data)
        return [state.index_select(0, inverse) for state in states]
