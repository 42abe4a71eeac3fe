"""The network: its recurrence, its layers, its fusion, its weights from a file."""

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet121

from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.checkpoint import load_network, read_checkpoint, save_tensors
from deeplung_nb.network.convlstm import ConvLSTM, ConvLSTMCell
from deeplung_nb.network.deeplung import DeepLungNet, layer_table
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.network.pretrained import load_trunk_weights
from deeplung_nb.runs.config import NetworkConfig, UNetConfig

SMALL = NetworkConfig(image_size=32, n_neighbours=2, dense_blocks=1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DeepLungNet(SMALL).eval()


def convolve(image, kernels):
    """3x3 correlation with zero padding, by hand: (C, Y, X) and (K, C, 3, 3) to (K, Y, X)."""
    _, n_y, n_x = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(kernels), n_y, n_x))
    for k, kernel in enumerate(kernels):
        for y in range(n_y):
            for x in range(n_x):
                out[k, y, x] = (padded[:, y:y + 3, x:x + 3] * kernel).sum()
    return out


def test_convlstm_equals_the_printed_recurrence_written_as_loops():
    torch.manual_seed(1)
    lstm = ConvLSTM(1, hidden=2, n_layers=2).double()
    x = torch.randn(1, 4, 1, 5, 6, dtype=torch.float64)
    sequence = list(x[0].numpy())

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for cell in lstm.cells:
        w_x = cell.from_input.weight.detach().numpy()
        w_h = cell.from_state.weight.detach().numpy()
        b = cell.from_input.bias.detach().numpy()[:, None, None]
        h, c, states = np.zeros((2, 5, 6)), np.zeros((2, 5, 6)), []
        for item in sequence:
            i, f, o, g = np.split(convolve(item, w_x) + convolve(h, w_h) + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            states.append(h)
        sequence = states
    np.testing.assert_allclose(lstm(x)[0].detach().numpy(), sequence[-1], rtol=1e-10)


def test_a_zero_state_equals_no_state():
    cell = ConvLSTMCell(1, 3)
    gates = cell.from_input(torch.randn(2, 1, 8, 8))
    zero = torch.zeros(2, 3, 8, 8)
    for a, b in zip(cell(gates, None), cell(gates, (zero, zero)), strict=True):
        torch.testing.assert_close(a, b)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd"):
        ConvLSTMCell(1, 3, kernel_size=4)


def test_layer_table_of_the_default_network():
    table = {row["part"]: row for row in layer_table(DeepLungNet())}
    assert table["trunk"]["output_shape"] == "512x32x32"
    assert table["main_head"]["output_shape"] == "3x32x32"
    assert table["fusion"]["output_shape"] == "3x256x256"
    # 4h[(c_in + h) k^2 + 1] for each of the two layers.
    assert table["convlstm"]["parameters"] == 12 * ((1 + 3) * 9 + 1) + 12 * ((3 + 3) * 9 + 1)
    # Two blocks of 512 x 512 x 9 and batch norm, then 1x1 to three classes.
    assert table["main_head"]["parameters"] == 2 * (512 * 512 * 9 + 2 * 512) + 512 * 3 + 3
    total = sum(row["parameters"] for row in table.values())
    assert total == sum(p.numel() for p in DeepLungNet().parameters()) == 6_014_919


def test_forget_bias_is_one_and_the_other_biases_zero(network):
    for cell in network.convlstm.cells:
        i, f, o, g = cell.from_input.bias.detach().chunk(4)
        assert (f == 1).all()
        assert all((part == 0).all() for part in (i, o, g))


def test_fusion_lies_between_the_two_branches(network):
    scores = network(torch.rand(1, 5, 32, 32))
    branch = network.attention_branch_head(network.convlstm(torch.rand(1, 5, 1, 32, 32)))
    assert scores.fused.shape == scores.main.shape == branch.shape == (1, 3, 32, 32)
    assert ((scores.attention > 0) & (scores.attention < 1)).all()


@pytest.mark.parametrize(("bias", "expected"), [(40.0, "main"), (-40.0, "attention branch")])
def test_attention_chooses_the_branch(bias, expected):
    torch.manual_seed(0)
    network = DeepLungNet(SMALL).eval()
    window = torch.rand(1, 5, 32, 32)
    with torch.no_grad():
        network.attention_head[-1].weight.zero_()
        network.attention_head[-1].bias.fill_(bias)
        scores = network(window)
        branch = network.attention_branch_head(network.convlstm(window.unsqueeze(2)))
    wanted = scores.main if expected == "main" else branch
    torch.testing.assert_close(scores.fused, wanted)


def test_the_main_branch_sees_the_target_slice_only(network):
    window = torch.rand(1, 5, 32, 32)
    other = window.clone()
    other[:, [0, 1, 3, 4]] = torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        a, b = network(window), network(other)
    torch.testing.assert_close(a.main, b.main)
    assert not torch.allclose(a.fused, b.fused)


def test_a_window_of_the_wrong_length_is_refused(network):
    with pytest.raises(ValueError, match=r"\(batch, 5, y, x\)"):
        network(torch.rand(1, 11, 32, 32))


def test_every_parameter_gets_a_gradient():
    network = DeepLungNet(SMALL)
    network(torch.rand(2, 5, 32, 32)).fused.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def torchvision_names(state):
    """A MONAI DenseNet's parameters under torchvision's names."""
    renamed = {}
    for name, tensor in state.items():
        for kind in ("norm1", "conv1", "norm2", "conv2"):
            name = name.replace(f".layers.{kind}.", f".{kind}.")
        renamed[name] = tensor
    return renamed


def test_imagenet_weights_are_read_from_a_local_file(tmp_path):
    torch.manual_seed(3)
    rgb = DenseNet121(spatial_dims=2, in_channels=3, out_channels=10)
    path = tmp_path / "densenet121.pth"
    torch.save(torchvision_names(rgb.state_dict()), path)
    network = DeepLungNet(SMALL).eval()
    load_trunk_weights(network, path)
    grey = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        features = rgb.eval().features
        wanted = grey.expand(-1, 3, -1, -1)
        for name, layer in features.named_children():
            wanted = layer(wanted)
            if name == "denseblock1":
                break
        torch.testing.assert_close(network.trunk(grey), wanted, rtol=1e-4, atol=1e-5)


def test_missing_or_unfit_weights_say_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="densenet121 weights"):
        load_trunk_weights(DeepLungNet(SMALL), tmp_path / "absent.pth")
    wrong = tmp_path / "wrong.pth"
    torch.save({"conv0.weight": torch.zeros(2, 2)}, wrong)
    with pytest.raises(ValueError, match="no state dict of densenet121"):
        load_trunk_weights(DeepLungNet(SMALL), wrong)


@pytest.mark.parametrize(("name", "n_seen"), [("unet2d", 1), ("unet3d", 16)])
def test_a_unet_scores_every_slice_that_it_sees(name, n_seen):
    network = UNet(UNetConfig(name, 2), 32).eval()
    scores = network(torch.rand(2, n_seen, 32, 32))
    assert scores.fused.shape == (2 * n_seen, 3, 32, 32)
    assert scores.main is None
    with pytest.raises(ValueError, match=rf"expected \(batch, {n_seen}, y, x\)"):
        network(torch.rand(2, n_seen + 1, 32, 32))


def test_a_slab_keeps_the_order_of_its_slices():
    torch.manual_seed(0)
    network = UNet(UNetConfig("unet3d", 2), 32).eval()
    a, b = torch.rand(1, 16, 32, 32), torch.rand(1, 16, 32, 32)
    together = network(torch.cat([a, b])).fused
    torch.testing.assert_close(together[16:], network(b).fused, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network(a).fused[3, :, 5, 7],
                               network.unet(a[:, None])[0, :, 3, 5, 7])


def test_the_classic_unet_has_its_31_million_parameters():
    """Ronneberger et al. 2015, 64 to 1024 channels; a little more with the norms."""
    n = sum(p.numel() for p in UNet(UNetConfig("unet2d", 64), 32).parameters())
    assert n == pytest.approx(31.1e6, rel=0.01)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="'nnunet': expected one of unet2d, unet3d"):
        UNetConfig("nnunet", 8)


def test_checkpoints_of_equal_contents_are_equal_bytes(checkpoint_file, tmp_path):
    """Whatever their names, which torch would write into them; the packaged ones too."""
    saved = read_checkpoint(checkpoint_file)
    for name in ("a.pt", "another name.pt"):
        save_tensors(saved, tmp_path / name)
        assert (tmp_path / name).read_bytes() == checkpoint_file.read_bytes()
    assert all(b".part-" not in path.read_bytes() for path in packaged_checkpoints())


@pytest.mark.parametrize(("field", "value"), [
    ("hu_window", 5), ("hu_window", ("a", "b")), ("hu_window", (1.0, 2.0, 3.0)), ("name", 7),
    ("name", "nnunet"), ("network", "small"), ("network", {"image_size": 32, "depth": 3}),
    ("state", [1, 2]), ("state", {"main_head.0.weight": "text"}), ("trained_on", "phantoms"),
    ("trained_on", {"cohorts": 3, "synthetic": True}), ("trained_on", {"cohorts": ["phantom"]}),
    ("trained_on", {"cohorts": ["phantom"], "synthetic": "no"})])
def test_a_checkpoint_with_a_strange_field_is_one_line_with_its_name(checkpoint_file, tmp_path,
                                                                     field, value):
    save_tensors({**read_checkpoint(checkpoint_file), field: value}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"checkpoint .*odd\.pt: not a checkpoint") as caught:
        load_network(tmp_path / "odd.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(checkpoint_file, tmp_path, value):
    saved = read_checkpoint(checkpoint_file)
    saved["state"]["main_head.0.weight"].view(-1)[0] = value
    save_tensors(saved, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"nan\.pt: weights that are NaN or infinite in 1 of"):
        load_network(tmp_path / "nan.pt")
