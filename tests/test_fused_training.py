"""The ConvLSTM's compiled way forwards and back: the plain one's, more exact, with less kept."""

import copy
import weakref

import numpy as np
import pytest
import torch

from deeplung_nb.network import deeplung, fused_training
from deeplung_nb.network.convlstm import ConvLSTM
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.fused_training import LEAST_WIDTH, can_walk, walk
from deeplung_nb.runs.config import NetworkConfig


def windows(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32))


def convlstm(hidden=3, n_layers=2, seed=0):
    torch.manual_seed(seed)
    net = ConvLSTM(1, hidden, n_layers)
    for parameter in net.parameters():  # gates that saturate, too
        parameter.data.mul_(2)
    return net


def both(net, forward, x, weight):
    """The last state, and the gradients of a weighted sum of it."""
    net.zero_grad()
    out = forward(x)
    (out * weight.to(out.dtype)).sum().backward()
    return out.detach(), [parameter.grad.clone() for parameter in net.parameters()]


@pytest.mark.parametrize(("hidden", "n_layers", "shape"), [
    (3, 2, (2, 5, 1, 20, 64)), (1, 1, (1, 3, 1, 9, 33)), (2, 3, (3, 4, 1, 1, 40)),
    (4, 2, (1, 2, 1, 3, 7)), (3, 2, (2, 2, 1, 31, 17)), (3, 1, (1, 11, 1, 6, 300))])
def test_states_and_gradients_are_those_of_automatic_differentiation(hidden, n_layers, shape):
    net, x = convlstm(hidden, n_layers), windows(*shape)
    weight = windows(shape[0], hidden, *shape[-2:], seed=1)
    exact_net = copy.deepcopy(net).double()
    wanted, exact = both(exact_net, exact_net, x.double(), weight)
    found, gradients = both(net, lambda x: walk(x, net.cells), x, weight)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    for mine, its in zip(gradients, exact, strict=True):
        assert (mine.double() - its).abs().max() <= 3e-6 * its.abs().max()


def test_gradients_are_nearer_to_the_exact_ones_than_the_plain_way_gets():
    for seed in range(3):
        net, x = convlstm(seed=seed), windows(2, 11, 1, 96, 96, seed=seed)
        weight = windows(2, 3, 96, 96, seed=seed + 10)
        exact_net = copy.deepcopy(net).double()
        _, exact = both(exact_net, exact_net, x.double(), weight)
        error = {}
        for name, forward in (("plain", net), ("walk", lambda x, net=net: walk(x, net.cells))):
            _, gradients = both(net, forward, x, weight)
            error[name] = max(float((mine - its).abs().max() / its.abs().max())
                              for mine, its in zip(gradients, exact, strict=True))
        assert error["walk"] < error["plain"]


def test_the_same_bytes_with_any_number_of_threads():
    net, x, weight = convlstm(), windows(5, 4, 1, 24, 40), windows(5, 3, 24, 40, seed=1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(both(net, lambda x: walk(x, net.cells), x, weight))
    finally:
        torch.set_num_threads(before)
    for out, gradients in found[1:]:
        assert torch.equal(out, found[0][0])
        assert all(map(torch.equal, gradients, found[0][1]))


def test_no_more_than_cells_and_states_are_kept_and_only_until_the_way_back_is_done(monkeypatch):
    kept, forward = [], fused_training._Walk.forward

    def watched(ctx, *given):
        save = ctx.save_for_backward
        out = forward(ctx, *given)
        kept.extend(t for t in save.__self__.to_save[-3:])
        return out

    monkeypatch.setattr(fused_training._Walk, "forward", staticmethod(watched))
    net, x = convlstm(3, 2), windows(2, 11, 1, 30, 62)
    out = walk(x, net.cells)
    slices, cells, states = kept
    assert cells.numel() == states.numel() == 2 * 2 * 11 * 3 * 32 * 64
    assert slices.numel() == 2 * 11 * 32 * 64
    held = weakref.ref(kept.pop())
    del slices, cells, states
    kept.clear()
    out.sum().backward()
    assert out is not None  # still held, as a training holds its loss
    assert held() is None


def test_where_it_can_t_or_does_not_pay_the_plain_way_is_taken(monkeypatch):
    cells, wide = convlstm().cells, windows(1, 3, 1, 4, LEAST_WIDTH)
    assert can_walk(wide, cells)
    assert not can_walk(windows(1, 3, 1, 4, LEAST_WIDTH - 1), cells)
    assert not can_walk(wide.double(), cells)
    assert not can_walk(wide.clone().requires_grad_(), cells)
    assert not can_walk(windows(1, 3, 2, 4, LEAST_WIDTH), ConvLSTM(2, 3, 1).cells)
    monkeypatch.setattr(fused_training, "can_compile", lambda: False)
    assert not can_walk(wide, cells)


def test_a_network_in_training_walks_and_one_that_scores_does_not(monkeypatch):
    walked = []
    monkeypatch.setattr(deeplung, "walk", lambda *a: walked.append(1) or walk(*a))
    torch.manual_seed(0)
    network = DeepLungNet(NetworkConfig(image_size=LEAST_WIDTH, n_neighbours=1, dense_blocks=1))
    x = windows(2, 3, LEAST_WIDTH, LEAST_WIDTH)

    def gradients(fused):
        network.fused_training = fused
        network.zero_grad()
        network(x).fused.square().mean().backward()
        return [parameter.grad.clone() for parameter in network.convlstm.parameters()]

    network.train()
    mine, plain = gradients(True), gradients(False)
    assert len(walked) == 1
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=1e-6)
    network.eval()
    network.fused_training = True
    network(x)
    assert len(walked) == 1


def test_under_autocast_it_computes_in_float32():
    net, x = convlstm(), windows(1, 3, 1, 8, LEAST_WIDTH)
    wanted = walk(x, net.cells)
    with torch.autocast("cpu", torch.bfloat16):
        found = walk(x, net.cells)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
