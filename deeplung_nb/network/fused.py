"""The ConvLSTM of `convlstm` as one fused kernel for the CPU, for scoring only.

What PyTorch does step by step through whole maps is memory traffic: 22 cell steps a slice over
twelve maps of gates. Here a window's steps and layers are walked together, row by row: step t of
layer l is at row s - 2 t - l while the front is at s, so that every row a convolution needs was
made a moment ago, and four rows of each state, which stay in the cache, are all that is kept. No
row is computed twice. Windows are independent and go to threads; the sums of a window don't depend
on how many there are.

Compiled by Numba, without a compiler on the machine, at the first call (seconds; kept on disk).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from deeplung_nb.kernels import can_compile, compiled
from deeplung_nb.network.convlstm import ConvLSTM

RING = 4
"""Rows kept of each state: r - 1 ... r + 1 are read while r + 2 is written."""
NOTHING = RING
"""Slot of the row beyond the image, which is 0."""


def _powers_of_two() -> tuple[np.float32, ...]:
    """Coefficients of 2^f for f from -1/2 to 1/2, interpolated at Chebyshev's points."""
    series = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5])
    return tuple(np.float32(c) for c in series.convert(kind=np.polynomial.Polynomial).coef)


P0, P1, P2, P3, P4, P5, P6 = _powers_of_two()
ONE, TWO = np.float32(1), np.float32(2)
MINUS_LOG2E, TWO_LOG2E = np.float32(-math.log2(math.e)), np.float32(2 * math.log2(math.e))
LARGEST = np.float32(126)

if can_compile():

    @compiled
    def exp2(x):
        """2^x: the whole part goes to the exponent's bits, the rest is a polynomial."""
        x = min(max(x, -LARGEST), LARGEST)
        whole = np.floor(x + np.float32(0.5))
        f = x - whole
        rest = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
        return rest * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)

    @compiled
    def sigmoid(x):
        return ONE / (ONE + exp2(MINUS_LOG2E * x))

    @compiled
    def tanh(x):
        return ONE - TWO / (ONE + exp2(TWO_LOG2E * x))

    @compiled(inline="always")
    def add_taps(up, here, down, w, k, out):
        """Add a 3 x 3 convolution of three rows [x + 2] to the rows k to k + 3 of `out`, x of each.

        `w` is [row of `out`, 9]. Four rows at once share what is read; in names of their own the
        weights stay in registers. Put into its callers before they are compiled, for only there the
        compiler sees that `out` lies apart from what is read.
        """
        a, b, c, d = out[k], out[k + 1], out[k + 2], out[k + 3]
        of_a, of_b, of_c, of_d = w[k], w[k + 1], w[k + 2], w[k + 3]
        a0, a1, a2, a3, a4 = of_a[0], of_a[1], of_a[2], of_a[3], of_a[4]
        a5, a6, a7, a8 = of_a[5], of_a[6], of_a[7], of_a[8]
        b0, b1, b2, b3, b4 = of_b[0], of_b[1], of_b[2], of_b[3], of_b[4]
        b5, b6, b7, b8 = of_b[5], of_b[6], of_b[7], of_b[8]
        c0, c1, c2, c3, c4 = of_c[0], of_c[1], of_c[2], of_c[3], of_c[4]
        c5, c6, c7, c8 = of_c[5], of_c[6], of_c[7], of_c[8]
        d0, d1, d2, d3, d4 = of_d[0], of_d[1], of_d[2], of_d[3], of_d[4]
        d5, d6, d7, d8 = of_d[5], of_d[6], of_d[7], of_d[8]
        for x in range(len(up) - 2):
            p0, p1, p2 = up[x], up[x + 1], up[x + 2]
            p3, p4, p5 = here[x], here[x + 1], here[x + 2]
            p6, p7, p8 = down[x], down[x + 1], down[x + 2]
            a[x] += (a0 * p0 + a1 * p1 + a2 * p2 + a3 * p3 + a4 * p4 + a5 * p5
                     + a6 * p6 + a7 * p7 + a8 * p8)
            b[x] += (b0 * p0 + b1 * p1 + b2 * p2 + b3 * p3 + b4 * p4 + b5 * p5
                     + b6 * p6 + b7 * p7 + b8 * p8)
            c[x] += (c0 * p0 + c1 * p1 + c2 * p2 + c3 * p3 + c4 * p4 + c5 * p5
                     + c6 * p6 + c7 * p7 + c8 * p8)
            d[x] += (d0 * p0 + d1 * p1 + d2 * p2 + d3 * p3 + d4 * p4 + d5 * p5
                     + d6 * p6 + d7 * p7 + d8 * p8)

    @compiled
    def _convolve(rows, above, at, below, w, gates):
        """Add a 3 x 3 convolution of rows [row, channel, x + 2] to all gates [4 hidden, x].

        `w` is [channel, gate, 9].
        """
        for k in range(0, len(gates), 4):
            for j in range(rows.shape[1]):
                add_taps(rows[above, j], rows[at, j], rows[below, j], w[j], k, gates)

    @compiled
    def _start_cell(i, o, g, cell, out):
        """A first step, from the zero state: the forget gate has nothing to forget."""
        for x in range(len(i)):
            c = sigmoid(i[x]) * tanh(g[x])
            cell[x] = c
            out[x] = sigmoid(o[x]) * tanh(c)

    @compiled
    def _step_cell(i, f, o, g, before, cell, out):
        for x in range(len(i)):
            c = sigmoid(f[x]) * before[x] + sigmoid(i[x]) * tanh(g[x])
            cell[x] = c
            out[x] = sigmoid(o[x]) * tanh(c)

    @compiled
    def _walk_window(slices, order, from_slice, from_below, from_state, bias, out):
        """The last state of the last layer, after the slices `order` of one window.

        Parameters
        ----------
        slices
            [z, y + 2, 1, x + 2], a border of zeros around each.
        order
            [step], places in `slices`.
        from_slice, from_below, from_state, bias
            Weights [1, 4 hidden, 9] of the first layer's input; [layer, hidden, 4 hidden, 9] of the
            other layers' input (the first is not used) and of all layers' state; [layer, 4 hidden].
        out
            [hidden, y, x], to be written.
        """
        n_steps, n_layers, hidden = len(order), from_state.shape[0], from_state.shape[1]
        height, width = slices.shape[1] - 2, slices.shape[3] - 2
        states = np.zeros((n_layers, n_steps, RING + 1, hidden, width + 2), np.float32)
        cells = np.empty((n_layers, n_steps, RING, hidden, width), np.float32)
        gates = np.empty((4 * hidden, width), np.float32)
        for front in range(height + 2 * (n_steps - 1) + n_layers - 1):
            for t in range(n_steps):
                for layer in range(n_layers):
                    r = front - 2 * t - layer
                    if r < 0 or r >= height:
                        continue
                    at = r % RING
                    above = (r - 1) % RING if r > 0 else NOTHING
                    below = (r + 1) % RING if r + 1 < height else NOTHING
                    for k in range(4 * hidden):
                        gates[k, :] = bias[layer, k]
                    if layer == 0:
                        _convolve(slices[order[t]], r, r + 1, r + 2, from_slice, gates)
                    else:
                        _convolve(states[layer - 1, t], above, at, below, from_below[layer], gates)
                    if t > 0:
                        _convolve(states[layer, t - 1], above, at, below, from_state[layer], gates)
                    for j in range(hidden):
                        i, f, o, g = (gates[j], gates[hidden + j], gates[2 * hidden + j],
                                      gates[3 * hidden + j])
                        cell, state = cells[layer, t, at, j], states[layer, t, at, j, 1:width + 1]
                        if t == 0:
                            _start_cell(i, o, g, cell, state)
                        else:
                            _step_cell(i, f, o, g, cells[layer, t - 1, at, j], cell, state)
                        if t == n_steps - 1 and layer == n_layers - 1:
                            out[j, r] = state


class FusedConvLSTM:
    """A trained `ConvLSTM` of one input channel and 3 x 3 kernels, for windows over slices."""

    def __init__(self, convlstm: ConvLSTM) -> None:
        first, *others = convlstm.cells

        def taps(convolution: torch.nn.Conv2d) -> np.ndarray:
            """[channel, gate, 9]"""
            weight = convolution.weight.detach().cpu().float()
            if weight.shape[-2:] != (3, 3):
                raise ValueError(f"kernel {tuple(weight.shape[-2:])}: only 3 x 3 is fused")
            return weight.flatten(2).permute(1, 0, 2).numpy().copy()

        if first.from_input.in_channels != 1:
            raise ValueError(f"{first.from_input.in_channels} input channels: only 1 is fused")
        self.hidden = first.hidden
        self.from_slice = taps(first.from_input)
        self.from_state = np.stack([taps(cell.from_state) for cell in convlstm.cells])
        self.from_below = np.stack([np.zeros_like(self.from_state[0])]
                                   + [taps(cell.from_input) for cell in others])
        self.bias = np.stack([cell.from_input.bias.detach().cpu().float().numpy()
                              for cell in convlstm.cells])

    def __call__(self, slices: np.ndarray, orders: np.ndarray) -> torch.Tensor:
        """Last states of windows.

        Parameters
        ----------
        slices
            float32 [z, y + 2, x + 2], with a border of zeros (`with_border`).
        orders
            [window, step], whole numbers: which slices each window walks over, in this order.

        Returns
        -------
        float32 [window, hidden, y, x].
        """
        if slices.dtype != np.float32 or not slices.flags.c_contiguous:
            raise ValueError(f"slices of {slices.dtype}: expected a contiguous float32 array")
        orders = np.ascontiguousarray(orders, np.int64)
        if orders.min() < 0 or orders.max() >= len(slices):  # the kernel would not ask
            raise ValueError(f"orders from {orders.min()} to {orders.max()}: there are "
                             f"{len(slices)} slices")
        out = np.empty((len(orders), self.hidden, *(n - 2 for n in slices.shape[1:])), np.float32)

        def walk(window: int) -> None:
            _walk_window(slices[:, :, None], orders[window], self.from_slice, self.from_below,
                         self.from_state, self.bias, out[window])

        threads = min(torch.get_num_threads(), len(orders))
        if threads == 1:
            for window in range(len(orders)):
                walk(window)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(walk, range(len(orders))))
        return torch.from_numpy(out)


def with_border(slices: np.ndarray) -> np.ndarray:
    """[z, y, x] with one pixel of zeros around each slice, as a padded convolution sees it."""
    return np.pad(np.asarray(slices, np.float32), ((0, 0), (1, 1), (1, 1)))
