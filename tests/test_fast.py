"""The fast way to score: equal to the network as it is written, and less work, counted."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from deeplung_nb.network import fused
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.convlstm import ConvLSTM
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.fast import FastDeepLungNet
from deeplung_nb.network.fused import FusedConvLSTM, with_border
from deeplung_nb.reading import predict
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs.config import NetworkConfig, UNetConfig


def lived_in(network, seed=0):
    """Weights and running statistics as after a training, not as after the start."""
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=rng)
            module.running_var.uniform_(0.5, 1.5, generator=rng)
            module.weight.data.uniform_(0.8, 1.2, generator=rng)
            module.bias.data.normal_(0, 0.1, generator=rng)
    return network.eval()


def make_network(seed=0, **options):
    torch.manual_seed(seed)
    return lived_in(DeepLungNet(NetworkConfig(
        **{"image_size": 32, "n_neighbours": 2, "dense_blocks": 1, "hidden": 2} | options)), seed)


def slices_of(n=7, size=32, seed=0):
    return np.random.default_rng(seed).random((n, size, size), dtype=np.float32)


def scores(predictor, slices):
    return np.concatenate(list(predictor.score_batches(slices)))


@pytest.mark.parametrize(("hidden", "n_layers", "shape"), [
    (3, 2, (64, 64)), (1, 1, (9, 33)), (2, 3, (1, 40)), (4, 2, (3, 7)), (3, 2, (31, 17))])
def test_the_fused_convlstm_is_the_plain_one(hidden, n_layers, shape):
    torch.manual_seed(1)
    plain = ConvLSTM(1, hidden, n_layers).eval()
    for parameter in plain.parameters():  # gates that saturate, too
        parameter.data.mul_(4)
    slices = np.random.default_rng(2).normal(0, 1, (6, *shape)).astype(np.float32)
    orders = np.array([[0, 1, 2, 3], [5, 5, 4, 0], [2, 2, 2, 2]])
    with torch.inference_mode():
        wanted = plain(torch.from_numpy(slices[orders])[:, :, None])
    found = FusedConvLSTM(plain)(with_border(slices), orders)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


def test_gates_far_out_are_0_and_1_and_no_overflow():
    torch.manual_seed(0)
    plain = ConvLSTM(1, 2, 1).eval()
    plain.cells[0].from_input.bias.data = torch.tensor([500.0, -500, 90, -90, 500, 1, 300, -300])
    slices = slices_of(2, 8)
    with torch.inference_mode():
        wanted = plain(torch.from_numpy(slices)[None, :, None])
    found = FusedConvLSTM(plain)(with_border(slices), np.array([[0, 1]]))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("options", [
    {}, {"hidden": 3, "lstm_layers": 1}, {"attention": False}, {"trunk": "mobilenet_v2"},
    {"output": "softmax", "lesion_threshold": 0.3}, {"dense_blocks": 2, "image_size": 64}])
def test_fast_scores_are_the_plain_ones(options):
    network = make_network(**options)
    slices = slices_of(size=options.get("image_size", 32))
    plain, fast = (Predictor([network], fast=way) for way in (False, True))
    assert (plain.is_fast, fast.is_fast) == (False, True)
    wanted, found = scores(plain, slices), scores(fast, slices)
    assert np.abs(found - wanted).max() < 1e-5
    # Labels may differ only where two classes are as good as equal.
    best = np.sort(wanted, axis=1)
    sure = best[:, -1] - best[:, -2] > 2e-5
    assert sure.mean() > 0.999
    assert (found.argmax(axis=1) == wanted.argmax(axis=1))[sure].all()


def test_an_ensemble_may_hold_networks_that_are_not_fast():
    unet = UNet(UNetConfig("unet2d", 2), 32).eval()
    assert not Predictor([unet]).is_fast
    wanted, found = (scores(Predictor([unet], fast=way), slices_of()) for way in (False, True))
    np.testing.assert_array_equal(found, wanted)


def test_fast_scoring_runs_the_trunk_once_a_slice_and_no_plain_convlstm(monkeypatch):
    network = make_network(dense_blocks=1)
    predictor = Predictor([network], batch=4)
    seen, walked = [], []
    main, walk = predictor._fast[id(network)].main, fused._walk_window

    def refuse(*_):
        raise AssertionError("the plain way was taken")

    monkeypatch.setattr(ConvLSTM, "forward", refuse)
    monkeypatch.setattr(DeepLungNet, "forward", refuse)
    monkeypatch.setattr(predictor._fast[id(network)], "main",
                        lambda x: seen.append(len(x)) or main(x))
    monkeypatch.setattr(fused, "_walk_window", lambda *a: walked.append(1) or walk(*a))
    scores(predictor, slices_of(7))
    assert seen == [4, 3]
    assert len(walked) == 7
    layers = [type(layer) for layer in main.modules()]
    # What is left are norms before a convolution, which can't be folded: DenseNet's.
    assert layers.count(nn.BatchNorm2d) < sum(
        isinstance(layer, nn.BatchNorm2d) for layer in nn.Sequential(
            network.trunk, network.main_head).modules()) / 2 + 1


def test_one_thread_and_two_give_the_same_states():
    plain = ConvLSTM(1, 3, 2).eval()
    slices, orders = with_border(slices_of(6)), np.array([[0, 1, 2], [1, 2, 3], [5, 5, 5]])
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(FusedConvLSTM(plain)(slices, orders).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_later_training_does_not_move_a_fast_network_nor_the_other_way_round():
    network = make_network()
    fast = FastDeepLungNet(network)
    slices, orders = with_border(slices_of()), np.array([[0, 1, 2, 3, 4]])
    before = fast(slices, orders)
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(fast(slices, orders), before, rtol=0, atol=0)
    for name, value in make_network().state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=0, atol=0)


def test_a_window_beyond_the_scan_is_refused():
    convlstm = FusedConvLSTM(ConvLSTM(1, 1, 1))
    with pytest.raises(ValueError, match="orders from -1 to 2: there are 7 slices"):
        convlstm(with_border(slices_of()), np.array([[-1, 0, 2]]))
    with pytest.raises(ValueError, match="expected a contiguous float32"):
        convlstm(with_border(slices_of()).astype(np.float64), np.array([[0, 1]]))
    wide = ConvLSTM(1, 1, 1)
    wide.cells[0].from_state = nn.Conv2d(1, 4, 5, padding=2, bias=False)
    with pytest.raises(ValueError, match="only 3 x 3 is fused"):
        FusedConvLSTM(wide)


def test_without_numba_it_says_so_and_takes_the_plain_way(monkeypatch):
    network = make_network()
    wanted = scores(Predictor([network], fast=False), slices_of())
    monkeypatch.setattr(predict, "can_compile", lambda: False)
    with pytest.warns(UserWarning, match="numba is not installed"):
        predictor = Predictor([network])
    assert not predictor.is_fast
    np.testing.assert_array_equal(scores(predictor, slices_of()), wanted)


def test_the_package_imports_without_numba():
    code = ("import sys; sys.modules['numba'] = None\n"
            "from deeplung_nb import kernels\n"
            "import deeplung_nb.reading.predict\n"
            "import deeplung_nb.network.fast\n"
            "assert not kernels.can_compile()")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_nothing_can_be_kept_on_disk_loops_are_compiled_all_the_same(tmp_path):
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/x",
                   "NUMBA_CACHE_LOCATOR_CLASSES": "UserWideCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)
    code = ("import numpy as np; from deeplung_nb.kernels import compiled\n"
            "@compiled\n"
            "def twice(x):\n"
            "    return 2 * x\n"
            "assert twice(2.0) == 4.0\n"
            "import deeplung_nb.imaging.preprocess")
    script = tmp_path / "twice.py"
    script.write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
