"""Convolutional LSTM (Shi et al. 2015, arXiv 1506.04214), without peepholes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvLSTMCell(nn.Module):
    """One step of a convolutional LSTM.

    With * for convolution and o for the product of elements:

        i = sigmoid(W_xi * X + W_hi * H + b_i)      f = sigmoid(W_xf * X + W_hf * H + b_f)
        o = sigmoid(W_xo * X + W_ho * H + b_o)      g = tanh(W_xg * X + W_hg * H + b_g)
        C' = f o C + i o g                          H' = o o tanh(C')

    The input's part of the gates needs no state, so `from_input` computes it for many slices in
    one call; the state's part has no bias of its own, so a zero state adds exactly nothing.
    """

    def __init__(self, in_channels: int, hidden: int, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size}: expected an odd number, or maps shrink")
        self.hidden = hidden
        self.from_input = nn.Conv2d(in_channels, 4 * hidden, kernel_size, padding="same")
        self.from_state = nn.Conv2d(hidden, 4 * hidden, kernel_size, padding="same", bias=False)

    def forward(
        self, input_gates: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Parameters
        ----------
        input_gates
            `from_input(x)`, (batch, 4 * hidden, y, x); gates in the order i, f, o, g.
        state
            (H, C), each (batch, hidden, y, x); None is the zero state.

        Returns
        -------
        (H', C')
        """
        gates = input_gates if state is None else input_gates + self.from_state(state[0])
        i, f, o, g = gates.chunk(4, dim=1)
        cell = torch.sigmoid(i) * torch.tanh(g)
        if state is not None:
            cell = torch.sigmoid(f) * state[1] + cell
        return torch.sigmoid(o) * torch.tanh(cell), cell


class ConvLSTM(nn.Module):
    """Layers of ConvLSTM over a window of slices, zero initial state, last hidden state out."""

    def __init__(self, in_channels: int, hidden: int, n_layers: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(
            ConvLSTMCell(in_channels if layer == 0 else hidden, hidden)
            for layer in range(n_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, slice, channel, y, x) to the last layer's last state, (batch, hidden, y, x)."""
        n_batch, n_slices = x.shape[:2]
        for cell in self.cells:
            gates = cell.from_input(x.flatten(0, 1)).unflatten(0, (n_batch, n_slices))
            state, states = None, []
            # unbind, not gates[:, t]: its gradient is one stack instead of n_slices full arrays.
            for gates_of_slice in gates.unbind(dim=1):
                state = cell(gates_of_slice, state)
                states.append(state[0])
            x = torch.stack(states, dim=1)
        return states[-1]
