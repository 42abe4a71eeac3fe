"""The ConvLSTM of `convlstm` as one step of automatic differentiation, for training on the CPU.

PyTorch walks a window in some 22 cell steps of a dozen small operations each, and back through all
of them. Here a window is walked by compiled loops, forwards and backwards, and windows go to
threads. Cells and states of every step are kept for the way back, which makes the gates anew: it
costs less than to keep them. A window's sums don't depend on the
threads, and windows are added up in their order.

The derivatives, with D for the gradient of the loss, ' for the step after and * for convolution;
all other products are those of elements, and o is the output gate:

    D c = D h o (1 - tanh(c)^2) + D c' f'
    D gates = (D c g i (1 - i), D c c_before f (1 - f), D h tanh(c) o (1 - o), D c i (1 - g^2)),
              each before its sigmoid or tanh
    D h_before = D gates * W_state turned round;  D of what is below likewise
    D W = sum over steps and places of (D gates) (what the weight was multiplied by)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeplung_nb.kernels import OPTIONS, can_compile, compiled

LEAST_WIDTH = 48
"""Of a map, pixels: narrower ones are left to the plain way."""
RUN = 256
"""About as many places are worked on at a time: what is made of them stays in the first cache."""
AT_ONCE = 4
"""Rows that `fused.add_taps` writes together."""


class Weights(NamedTuple):
    """float32 arrays, of one input channel and hidden states h; gates in the order i, f, o, g."""

    from_slice: np.ndarray
    """[1, 4 h, 9], of the first layer's input."""
    from_below: np.ndarray
    """[layer, h, 4 h, 9], of the other layers' input; the first is not used."""
    from_state: np.ndarray
    """[layer, h, 4 h, 9]"""
    bias: np.ndarray
    """[layer, 4 h]"""


if can_compile():
    from deeplung_nb.network.fused import ONE, add_taps, sigmoid, tanh

    # Maps are flat: [channel, (y + 2) (x + 2)], with a border of zeros. So a few rows of a narrow
    # map are one run of numbers, the two of the border between them included: what is written
    # there is wiped out. A loop has one result: with more of them the compiler does not see that
    # they lie apart, and works number by number.

    @compiled(inline="always")
    def _convolve(maps, start, n, line, w, out):
        """Add a 3 x 3 convolution of maps, at `n` places from `start`, to `out` [row, ...].

        `w` is [channel, row of `out`, 9]; rows come in fours.
        """
        for k in range(0, len(out), 4):
            for j in range(len(maps)):
                at = maps[j]
                add_taps(at[start - line - 1:start - line + n + 1], at[start - 1:start + n + 1],
                         at[start + line - 1:start + line + n + 1], w[j], k, out)

    @compiled
    def _wipe(maps, y, n_rows, line):
        """Zeros at both ends of so many rows from `y` on."""
        for j in range(len(maps)):
            for r in range(y + 1, y + n_rows + 1):
                maps[j, r * line] = 0
                maps[j, r * line + line - 1] = 0

    @compiled(inline="always")
    def _gates(slices, from_slice, from_below, from_state, bias, states, layer, t, start, n, line,
               row):
        """The gates, after their functions, at `n` places: into `row` [4 h, ...]."""
        for k in range(len(row)):
            row[k, :] = bias[layer, k]
        if layer == 0:
            _convolve(slices[t], start, n, line, from_slice, row)
        else:
            _convolve(states[layer - 1, t], start, n, line, from_below[layer], row)
        if t > 0:
            _convolve(states[layer, t - 1], start, n, line, from_state[layer], row)
        n_sigmoid = 3 * len(row) // 4
        for k in range(n_sigmoid):
            gate = row[k]
            for x in range(n):
                gate[x] = sigmoid(gate[x])
        for k in range(n_sigmoid, len(row)):
            gate = row[k]
            for x in range(n):
                gate[x] = tanh(gate[x])

    @compiled
    def _forward(slices, from_slice, from_below, from_state, bias, line, cells, states):
        """Fill `cells` and `states` [layer, step, h, place] of one window, which hold zeros.

        `slices` is [step, 1, place], `line` the places of a row.
        """
        n_layers, n_steps, hidden, n_places = cells.shape
        height, run = n_places // line - 2, max(1, RUN // line)
        row = np.empty((4 * hidden, run * line), np.float32)
        nothing = np.zeros(run * line, np.float32)
        for layer in range(n_layers):
            for t in range(n_steps):
                for y in range(0, height, run):
                    n_rows = min(run, height - y)
                    start, n = (y + 1) * line + 1, n_rows * line - 2
                    _gates(slices, from_slice, from_below, from_state, bias, states, layer, t,
                           start, n, line, row)
                    for j in range(hidden):
                        i, f, o, g = (row[j], row[hidden + j], row[2 * hidden + j],
                                      row[3 * hidden + j])
                        before = cells[layer, t - 1, j, start:start + n] if t > 0 else nothing[:n]
                        c = cells[layer, t, j, start:start + n]
                        h = states[layer, t, j, start:start + n]
                        for x in range(n):
                            c[x] = f[x] * before[x] + i[x] * g[x]
                        for x in range(n):
                            h[x] = o[x] * tanh(c[x])
                    _wipe(states[layer, t], y, n_rows, line)

    @compiled
    def _cell_back(row, cells, before, d_state, d_cell, d_gates, start, n):
        """Gradients of the gates, before their functions; `d_cell` goes a step back.

        All but `row` are maps [channel, place], worked on at `n` places from `start`; `before`
        holds the cells of the step before.
        """
        hidden, end = len(cells), start + n
        bent, down = np.empty((2, n), np.float32)
        for j in range(hidden):
            i, f, o, g = row[j], row[hidden + j], row[2 * hidden + j], row[3 * hidden + j]
            d_i, d_f = d_gates[j, start:end], d_gates[hidden + j, start:end]
            d_o, d_g = d_gates[2 * hidden + j, start:end], d_gates[3 * hidden + j, start:end]
            c, c0 = cells[j, start:end], before[j, start:end]
            dh, dc = d_state[j, start:end], d_cell[j, start:end]
            for x in range(n):
                bent[x] = tanh(c[x])
            for x in range(n):
                down[x] = dc[x] + dh[x] * o[x] * (ONE - bent[x] * bent[x])
            for x in range(n):
                d_i[x] = down[x] * g[x] * i[x] * (ONE - i[x])
            for x in range(n):
                d_f[x] = down[x] * c0[x] * f[x] * (ONE - f[x])
            for x in range(n):
                d_o[x] = dh[x] * bent[x] * o[x] * (ONE - o[x])
            for x in range(n):
                d_g[x] = down[x] * i[x] * (ONE - g[x] * g[x])
            for x in range(n):
                dc[x] = down[x] * f[x]

    @compiled
    def _convolve_all(maps, line, w, out):
        """`_convolve` for all rows."""
        height, run = out.shape[1] // line - 2, max(1, RUN // line)
        row = np.empty((len(out), run * line), np.float32)  # a place of its own: see above
        for y in range(0, height, run):
            start, n = (y + 1) * line + 1, min(run, height - y) * line - 2
            for k in range(len(out)):
                row[k, :n] = out[k, start:start + n]
            _convolve(maps, start, n, line, w, row)
            for k in range(len(out)):
                out[k, start:start + n] = row[k, :n]

    @compiled
    def _step_back(slices, from_slice, from_below, from_state, bias, line, cells, states, layer, t,
                   nothing, above, d_cell, d_gates):
        """Gradients of one step's gates into `d_gates` [gate, place]."""
        height, run = d_cell.shape[1] // line - 2, max(1, RUN // line)
        row = np.empty((len(d_gates), run * line), np.float32)
        before = cells[layer, t - 1] if t > 0 else nothing
        for y in range(0, height, run):
            n_rows = min(run, height - y)
            start, n = (y + 1) * line + 1, n_rows * line - 2
            _gates(slices, from_slice, from_below, from_state, bias, states, layer, t, start, n,
                   line, row)
            _cell_back(row, cells[layer, t], before, above, d_cell, d_gates, start, n)
            _wipe(d_gates, y, n_rows, line)

    # Sums in the order that suits the processor's vectors: the same on each run of one machine.
    _summed = {"fastmath": {*OPTIONS["fastmath"], "reassoc", "nsz"}}

    @compiled(**_summed)
    def _sum(row):
        total = np.float32(0)
        for x in range(len(row)):
            total += row[x]
        return total

    @compiled(**_summed)
    def _weigh(read, d, line, sums):
        """Add to `sums` [9] the products of a map of gradients and a map that was convolved.

        Both flat, with a border of zeros around the gradients, `line` numbers to a row.
        """
        # Slices, so that no index could be one from the end: then it is a vector's work.
        up, here, down, middle = read, read[line:], read[2 * line:], d[line + 1:]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = np.float32(0)
        for n in range(len(d) - 2 * line - 2):
            v = middle[n]
            s0 += v * up[n]
            s1 += v * up[n + 1]
            s2 += v * up[n + 2]
            s3 += v * here[n]
            s4 += v * here[n + 1]
            s5 += v * here[n + 2]
            s6 += v * down[n]
            s7 += v * down[n + 1]
            s8 += v * down[n + 2]
        sums[0] += s0
        sums[1] += s1
        sums[2] += s2
        sums[3] += s3
        sums[4] += s4
        sums[5] += s5
        sums[6] += s6
        sums[7] += s7
        sums[8] += s8

    @compiled
    def _weigh_all(maps, d_maps, line, sums):
        """`_weigh` for maps [channel, place] and sums [channel, gate, 9]."""
        for j in range(len(maps)):
            for k in range(len(d_maps)):
                _weigh(maps[j], d_maps[k], line, sums[j, k])

    @compiled
    def _backward(slices, from_slice, from_below, from_state, bias, line, turned_below,
                  turned_state, cells, states, d_out, d_slice, d_below, d_state, d_bias):
        """Add the gradients of one window's weights to `d_slice`, `d_below`, `d_state`, `d_bias`.

        `d_out` is that of the last state, [h, place]; `turned_...` are [layer, 4 h, rows, 9].
        """
        n_layers, n_steps, hidden, n_places = cells.shape
        rows = turned_state.shape[2]
        # What comes from above for each step, and from the step after.
        above = np.zeros((n_steps, rows, n_places), np.float32)
        above[n_steps - 1, :hidden] = d_out
        d_gates = np.zeros((4 * hidden, n_places), np.float32)
        nothing = np.zeros((hidden, n_places), np.float32)
        for layer in range(n_layers - 1, -1, -1):
            d_cell = np.zeros((hidden, n_places), np.float32)
            for t in range(n_steps - 1, -1, -1):
                _step_back(slices, from_slice, from_below, from_state, bias, line, cells, states,
                           layer, t, nothing, above[t], d_cell, d_gates)
                for k in range(4 * hidden):
                    d_bias[layer, k] += _sum(d_gates[k])
                if t > 0:
                    _weigh_all(states[layer, t - 1], d_gates, line, d_state[layer])
                    _convolve_all(d_gates, line, turned_state[layer], above[t - 1])
                if layer == 0:
                    _weigh_all(slices[t], d_gates, line, d_slice)
                else:
                    _weigh_all(states[layer - 1, t], d_gates, line, d_below[layer])
                    above[t] = 0
                    _convolve_all(d_gates, line, turned_below[layer], above[t])


def _turned(weights: np.ndarray) -> np.ndarray:
    """[layer, h, 4 h, 9] for the way back: [layer, 4 h, h to the next four, 9], turned round."""
    back = weights[..., ::-1].swapaxes(1, 2)
    spare = -back.shape[2] % AT_ONCE
    return np.ascontiguousarray(np.pad(back, ((0, 0), (0, 0), (0, spare), (0, 0))))


def _bordered(maps: Tensor) -> np.ndarray:
    """[..., y, x] with one pixel of zeros around each map."""
    beside = [(0, 0)] * (maps.ndim - 2) + [(1, 1)] * 2
    return np.pad(maps.numpy(), beside)


def _for_each(work, n: int) -> None:
    threads = min(torch.get_num_threads(), n)
    if threads <= 1:
        for k in range(n):
            work(k)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(n)))


class _Walk(torch.autograd.Function):
    """(window [B, step, y, x], the four weights) to the last state [B, h, y, x]."""

    @staticmethod
    def forward(ctx, windows: Tensor, *weights: Tensor) -> Tensor:
        w = Weights(*(weight.detach().numpy() for weight in weights))
        n_layers, hidden = w.from_state.shape[:2]
        n, n_steps, height, width = windows.shape
        slices = _bordered(windows).reshape(n, n_steps, 1, -1)
        shape = (n, n_layers, n_steps, hidden, slices.shape[-1])
        cells, states = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        _for_each(lambda k: _forward(slices[k], *w, width + 2, cells[k], states[k]), n)
        # Through autograd, which lets go of them when the way back is done.
        ctx.save_for_backward(*weights, *map(torch.from_numpy, (slices, cells, states)))
        last = states[:, -1, -1].reshape(n, hidden, height + 2, width + 2)
        return torch.from_numpy(np.ascontiguousarray(last[..., 1:-1, 1:-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor):
        *weights, slices, cells, states = (t.detach().numpy() for t in ctx.saved_tensors)
        w = Weights(*weights)
        n, hidden, line = len(slices), w.from_state.shape[1], d_out.shape[-1] + 2
        d_last = _bordered(d_out).reshape(n, hidden, -1)
        turned = _turned(w.from_below), _turned(w.from_state)
        parts = [Weights(*(np.zeros_like(weight) for weight in w)) for _ in range(n)]
        _for_each(lambda k: _backward(slices[k], *w, line, *turned, cells[k], states[k], d_last[k],
                                      *parts[k]), n)
        return None, *(torch.from_numpy(sum(some)) for some in zip(*parts, strict=True))


def _taps(convolution: torch.nn.Conv2d) -> Tensor:
    """Weights as the loops read them, [channel, gate, 9]; gradients flow back."""
    return convolution.weight.flatten(2).permute(1, 0, 2).contiguous()


def can_walk(window: Tensor, cells: torch.nn.ModuleList) -> bool:
    """Whether `walk` does for these windows (B, step, 1, y, x), and pays.

    It wants float32 on the CPU, one input channel, 3 x 3 kernels and Numba; narrow maps are left
    to the plain way. Under autocast it computes in float32 all the same.
    """
    kernels = {tuple(part.kernel_size) for cell in cells
               for part in (cell.from_input, cell.from_state)}
    return (can_compile() and torch.is_grad_enabled() and window.device.type == "cpu"
            and window.dtype == torch.float32 and window.shape[-1] >= LEAST_WIDTH
            and not window.requires_grad and cells[0].from_input.in_channels == 1
            and kernels == {(3, 3)})


def walk(window: Tensor, cells: torch.nn.ModuleList) -> Tensor:
    """What `ConvLSTM` makes of windows (B, step, 1, y, x): the last state (B, h, y, x)."""
    first, *others = cells
    from_state = torch.stack([_taps(cell.from_state) for cell in cells])
    below = torch.stack([torch.zeros_like(from_state[0])] + [_taps(c.from_input) for c in others])
    bias = torch.stack([cell.from_input.bias for cell in cells])
    return _Walk.apply(window.squeeze(2).contiguous(), _taps(first.from_input), below, from_state,
                       bias)
