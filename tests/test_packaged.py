"""Training from few patients, and the weights that come with the package."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from torch.nn import functional

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.imaging.slices import (
    LUNG_HU,
    SOFT_HU,
    SliceLayout,
    grey_to_hu,
    read_slice,
    read_slice_mask,
)
from deeplung_nb.labels import NO_ANSWER
from deeplung_nb.learning import release
from deeplung_nb.learning.dataset import (
    PreparedCase,
    SliceSampler,
    augment,
    change_hu,
    prepare_slice,
)
from deeplung_nb.learning.estimate import choose_threshold
from deeplung_nb.network.checkpoint import load_network
from deeplung_nb.network.deeplung import DeepLungNet, probabilities
from deeplung_nb.network.losses import ClassLoss, SegmentationLoss, one_hot
from deeplung_nb.network.packaged import CARD, packaged_checkpoints, read_card
from deeplung_nb.network.pretrained import find_encoder, load_trunk_weights
from deeplung_nb.network.trunks import IMAGENET_MEAN, IMAGENET_SD, MobileTrunk, make_trunk
from deeplung_nb.reading.familiarity import (
    PROPERTIES,
    describe_scan,
    distances,
    training_ranges,
    warnings_of,
)
from deeplung_nb.reading.uncertainty import likely_volume, likely_words
from deeplung_nb.runs.config import NetworkConfig, TrainingConfig, load_profile

TURNED = SliceLayout(quarter_turns=1, longest_share=0.75)


def test_a_trunk_takes_a_slice_and_gives_a_map_of_its_width():
    for trunk, stride in (("densenet121", 8), ("mobilenet_v2", 4)):
        made = make_trunk(NetworkConfig(trunk=trunk)).eval()
        with torch.no_grad():
            assert made(torch.zeros(2, 1, 64, 96)).shape == (2, made.width, 64 // stride,
                                                             96 // stride)
    with pytest.raises(ValueError, match="trunk 'resnet': expected one of densenet121, mobile"):
        make_trunk(NetworkConfig(trunk="resnet"))


def test_the_mobile_trunk_has_the_layers_of_the_published_encoder(shared_data):
    """Names, shapes and number of parameters of the file that others trained."""
    path = shared_data("encoders") / "mobilenet_v2_imagenet_encoder_fp32.pt"
    given = torch.load(path, weights_only=True)
    network = DeepLungNet(NetworkConfig(trunk="mobilenet_v2", image_size=64))
    n_loaded = load_trunk_weights(network, path)
    own = network.trunk.state_dict()
    assert n_loaded == sum(not name.startswith("merge.") for name in own)
    for name in own:
        if not name.startswith("merge.") and name != "features.0.0.weight":
            torch.testing.assert_close(own[name], given[name])
    torch.testing.assert_close(own["features.0.0.weight"],
                               given["features.0.0.weight"].sum(dim=1, keepdim=True))


def test_a_grey_slice_gives_the_features_that_colour_would(shared_data):
    """By hand: the same grey in three normalised channels, through the three-channel stem."""
    path = shared_data("encoders") / "mobilenet_v2_imagenet_encoder_fp32.pt"
    given = torch.load(path, weights_only=True)
    network = DeepLungNet(NetworkConfig(trunk="mobilenet_v2", image_size=64)).eval()
    load_trunk_weights(network, path)
    grey = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    colour = ((grey - IMAGENET_MEAN) / IMAGENET_SD).expand(-1, 3, -1, -1)
    wanted = functional.conv2d(colour, given["features.0.0.weight"], stride=2, padding=1)
    found = network.trunk.features[0][0]((grey - IMAGENET_MEAN) / IMAGENET_SD)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", range(4))
def test_each_of_the_four_maps_reaches_the_merged_one(level):
    torch.manual_seed(0)
    trunk = MobileTrunk().eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = trunk(image)
        trunk.merge[level].weight.zero_()
        assert not torch.allclose(trunk(image), before)


def test_an_encoder_is_taken_only_with_its_hash(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mobilenet_v2_imagenet.*is missing.*wheel"):
        find_encoder("mobilenet_v2_imagenet", tmp_path)
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "mobilenet_v2_imagenet_encoder_fp32.pt").write_bytes(b"other")
    with pytest.raises(ValueError, match="expected b1d47740"):
        find_encoder("mobilenet_v2_imagenet", tmp_path)
    assert find_encoder(tmp_path / "mine.pth", None) == tmp_path / "mine.pth"


def test_an_encoder_whose_publisher_gives_a_few_digits_is_held_to_these(tmp_path, monkeypatch):
    (tmp_path / "encoders").mkdir()
    path = tmp_path / "encoders" / "densenet121-a639ec97.pth"
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match="expected a639ec97"):
        find_encoder("densenet121_imagenet", tmp_path)
    monkeypatch.setattr("deeplung_nb.network.pretrained.sha256_of", lambda _: "a639ec97" + "0" * 56)
    assert find_encoder("densenet121_imagenet", tmp_path) == path


def test_without_attention_the_network_sees_one_slice():
    network = DeepLungNet(NetworkConfig(image_size=32, dense_blocks=1, attention=False)).eval()
    assert list(network.sees) == [0]
    with torch.no_grad():
        scores = network(torch.zeros(1, 1, 32, 32))
    assert scores.fused.shape == (1, 3, 32, 32)
    assert scores.main is scores.attention is None


def test_scores_are_shares_of_one_where_the_settings_say_softmax():
    logits = torch.tensor([[[[2.0]], [[0.0]], [[-1.0]]]])
    assert probabilities(logits, "softmax").sum() == pytest.approx(1.0)
    assert probabilities(logits, "sigmoid")[0, 1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="output 'argmax'"):
        NetworkConfig(output="argmax")


def test_class_loss_by_hand():
    target = torch.tensor([[[0, 1], [2, 1]]], dtype=torch.uint8)
    logits = torch.zeros(1, 3, 2, 2)
    # Every share is 1/3: Dice of 2 voxels, of 1, and of 3 with shares of 2/3.
    dice = [(2 * 2 / 3 + 1) / (4 / 3 + 2 + 1), (2 / 3 + 1) / (4 / 3 + 1 + 1),
            (2 * 3 * 2 / 3 + 1) / (8 / 3 + 3 + 1)]
    wanted = np.log(3) + 1 - np.mean(dice)
    assert ClassLoss()(logits, target).item() == pytest.approx(wanted)


@pytest.mark.parametrize("settings", [
    {"region_weight": 1.0}, {"region_weight": 0.0, "class_weight": 1.0},
    {"region_weight": 0.5, "class_weight": 2.0, "dice_weight": 1.0}])
def test_pixels_without_an_answer_teach_nothing(settings):
    loss = SegmentationLoss(TrainingConfig(**settings))
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (2, 32, 32), generator=generator).to(torch.uint8)
    target[:, :, 20:] = NO_ANSWER
    logits = torch.randn(2, 3, 32, 32, generator=generator, requires_grad=True)
    value = loss(logits, target)
    value.backward()
    assert (logits.grad[..., 20:] == 0).all()
    assert (logits.grad[..., :20] != 0).any()
    changed = logits.detach().clone()
    changed[..., 20:] += 5.0
    assert loss(changed, target).item() == pytest.approx(value.item(), rel=1e-6)
    assert (one_hot(target)[..., 20:] == 0).all()


def test_changes_of_hu_stay_within_their_settings_and_repeat_with_the_seed():
    hu = torch.full((64, 1, 16, 16), 150.0)
    settings = TrainingConfig(hu_gain=0.1, hu_offset=60.0)
    changed = change_hu(hu, settings, np.random.default_rng(0))
    assert ((changed - 150.0).abs() <= 0.1 * 1000 + 60).all()
    assert changed.std() > 20
    assert torch.equal(changed, change_hu(hu, settings, np.random.default_rng(0)))
    noisy = change_hu(hu, TrainingConfig(hu_noise=35.0), np.random.default_rng(0))
    spreads = (noisy - hu).flatten(1).std(dim=1)
    assert spreads.max() < 45
    assert spreads.min() < 10
    still = change_hu(hu, TrainingConfig(), np.random.default_rng(0))
    assert torch.equal(still, hu)


def test_blur_keeps_the_mean_and_takes_the_edges():
    hu = torch.zeros(1, 2, 32, 32)
    hu[..., 16:] = 100.0
    soft = change_hu(hu, TrainingConfig(blur_fraction=1.0), np.random.default_rng(0))
    assert 0 < soft[0, 0, 16, 15] < 50 < soft[0, 0, 16, 16] < 100
    assert soft[0, :, 8:24, 8:24].mean() == pytest.approx(50.0, abs=1.0)


def test_sharpening_keeps_the_mean_and_overshoots_edges():
    hu = torch.zeros(1, 2, 32, 32)
    hu[..., 16:] = 100.0
    sharp = change_hu(hu, TrainingConfig(sharpen_fraction=1.0), np.random.default_rng(0))
    assert sharp[0, 0, 16, 15] < -5
    assert sharp[0, 0, 16, 16] > 105
    assert sharp[0, :, 8:24, 8:24].mean() == pytest.approx(50.0, abs=1.0)
    assert torch.allclose(sharp[..., :8], hu[..., :8], atol=1e-4)  # the image's rim too
    assert torch.allclose(sharp[..., -8:], hu[..., -8:], atol=1e-3)
    many = torch.zeros(40, 1, 16, 16)
    many[..., 8:] = 100.0
    some = change_hu(many, TrainingConfig(sharpen_fraction=0.4), np.random.default_rng(1))
    changed = (some != many).flatten(1).any(dim=1)
    assert 8 < int(changed.sum()) < 24
    part = change_hu(many[[3, 30]], TrainingConfig(sharpen_fraction=0.4),
                     np.random.default_rng(1), 40, np.array([3, 30]))
    assert torch.equal(part, some[[3, 30]])


def test_a_flip_mirrors_image_and_target_alike():
    settings = TrainingConfig(rotation_degrees=0, translation_pixels=0, scale_range=(1, 1),
                              flip=True)
    hu = torch.full((40, 3, 16, 16), -900.0)
    hu[..., :4] = 100.0
    target = torch.zeros(40, 1, 16, 16, dtype=torch.uint8)
    target[..., :4] = 2
    moved, wanted = augment(hu, target, settings, np.random.default_rng(0))
    left = (wanted[:, 0, 8, :4] == 2).all(dim=1)
    assert 10 < left.sum() < 30
    assert ((moved[:, 0, 8, 1] > 0) == left).all()
    assert ((moved[:, 0, 8, -2] > 0) == ~left).all()


def test_a_share_of_each_batch_comes_from_isolated_slices():
    def case(name, n, source, code):
        target = np.zeros((n, 8, 8), np.uint8)
        target[:n // 2, 2:4, 2:4] = code
        return PreparedCase(name, np.zeros((n, 8, 8), np.int16), target, source)

    cases = [case("v", 20, "volume", 1), case("w", 20, "volume", 2), case("a", 1, "slice", 1),
             case("b", 1, "slice", 2)]
    settings = TrainingConfig(steps_per_epoch=4, batch_slices=10, isolated_fraction=0.3,
                              lesion_fraction=0.5)
    for picks, _ in SliceSampler(cases, settings, seed=0).batches(0):
        assert [cases[i].source for i, _ in picks].count("slice") == 3
        assert len(picks) == 10
    with pytest.raises(ValueError, match=r"isolated_fraction 0\.3: the training cases"):
        SliceSampler(cases[:2], settings, seed=0)


def picture(path, lung=40, soft=210):
    """A chest of two greys, turned by a quarter: the spine points to the right."""
    upright = np.full((60, 80), soft, np.uint8)
    upright[10:45, 8:36] = upright[10:45, 44:72] = lung
    noise = np.random.default_rng(0).normal(0, 4, upright.shape)
    upright = np.clip(upright + noise, 0, 255).astype(np.uint8)
    mask = np.zeros(upright.shape, np.uint8)
    mask[30:40, 10:20] = 3
    for name, array in (("image", upright), ("mask", mask)):
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(np.rot90(array))),
                        str(path / f"{name}.png"))
    return mask


def test_a_slice_is_turned_and_its_tissues_find_their_hu(tmp_path):
    mask = picture(tmp_path)
    scan = read_slice(tmp_path / "image.png", "s1", TURNED)
    assert scan.shape == (1, 60, 80)
    assert np.median(scan.hu[0, 10:45, 8:36]) == pytest.approx(LUNG_HU, abs=15)
    assert np.median(scan.hu[0, 50:]) == pytest.approx(SOFT_HU, abs=15)
    found = read_slice_mask(tmp_path / "mask.png", scan, {1: 1, 2: 2, 3: 2}, TURNED)
    assert ((found.labels[0] == 2) == (mask == 3)).all()
    with pytest.raises(ScanError, match="label codes 3, expected 0, 1"):
        read_slice_mask(tmp_path / "mask.png", scan, {1: 1}, TURNED)
    with pytest.raises(ScanError, match=r"'s2'.*can't be read as a picture"):
        read_slice(tmp_path / "absent.png", "s2", TURNED)


def test_a_picture_without_healthy_lung_falls_back_to_the_usual_greys():
    grey = np.full((50, 50), 208, np.uint8)
    grey[:20] = 120  # consolidated
    hu = grey_to_hu(grey, TURNED)
    assert hu[30, 30] == pytest.approx(SOFT_HU, abs=30)
    assert -500 < hu[5, 5] < -200


def test_the_air_padded_around_an_isolated_slice_is_background(tmp_path):
    """With no answer there, a network called that air ground glass, and no one told it better."""
    picture(tmp_path)
    scan = read_slice(tmp_path / "image.png", "s1", TURNED)
    mask = read_slice_mask(tmp_path / "mask.png", scan, {3: 2}, TURNED)
    mask.labels[:] = np.maximum(mask.labels, 1)  # lesion up to the edge
    case = prepare_slice(scan, mask, 64, TURNED.longest_share)
    inside = case.target[0] > 0
    assert case.source == "slice"
    assert inside.sum() == 48 * 36  # 80 x 60 at three fourths of 64 pixels
    assert (case.target[0][~inside] == 0).all()
    assert (case.hu[0][~inside] == -1024).all()
    share = (case.target[0] == 2).sum() / inside.sum()
    assert share == pytest.approx(100 / (60 * 80), rel=0.15)


@pytest.fixture
def weights(tmp_path, checkpoint_file):
    """A folder of packaged weights: two copies of a tiny network."""
    from deeplung_nb.files import sha256_of

    for k in range(2):
        shutil.copy(checkpoint_file, tmp_path / f"tiny-{k}.pt")
    card = {"name": "tiny", "files": [
        {"file": f"tiny-{k}.pt", "sha256": sha256_of(tmp_path / f"tiny-{k}.pt")}
        for k in range(2)]}
    (tmp_path / CARD).write_text(json.dumps(card))
    return tmp_path


def test_packaged_weights_are_used_by_their_name(weights, monkeypatch):
    from deeplung_nb.reading import provenance, segment

    files = packaged_checkpoints(weights)
    monkeypatch.setattr(segment, "packaged_checkpoints", lambda: files)
    monkeypatch.setattr(provenance, "read_card", lambda: read_card(weights))
    assert segment.default_checkpoints() == files
    assert provenance.describe_network(files)["name"] == "mean of 2 tiny"
    # One of them alone is not the packaged network.
    assert provenance.describe_network(files[:1])["name"] == "deeplung"


def test_a_changed_packaged_file_is_refused(weights):
    assert len(packaged_checkpoints(weights)) == 2
    (weights / "tiny-1.pt").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"tiny-1\.pt: SHA-256 .* Install the package again"):
        packaged_checkpoints(weights)
    assert packaged_checkpoints(weights / "empty") == []


def test_the_papers_profile_has_none_of_it():
    config = load_profile("paper")
    assert config.training == TrainingConfig()
    assert config.network == NetworkConfig()
    assert (config.first, config.pretrained) == (None, "densenet121_imagenet")


def test_settings_with_a_first_training_survive_json():
    config = load_profile("public")
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    old = {name: value for name, value in config.to_dict().items() if name != "first"}
    assert type(config).from_dict(old) == dataclasses.replace(config, first=None)


def scan_of(hu, spacing=(5.0, 0.8, 0.8)):
    return Scan(hu.astype(np.int16), Grid.upright(hu.shape, spacing), "s")


def test_properties_of_a_scan_are_those_that_it_was_made_with():
    rng = np.random.default_rng(0)
    hu = np.full((6, 64, 64), 45.0)
    hu[:, 16:48, 8:28] = hu[:, 16:48, 36:56] = -820.0
    lungs = hu < -500
    scan = scan_of(hu + rng.normal(0, 12, hu.shape))
    found = describe_scan(scan, LungMask.like(scan, lungs, "reference"), 7.5)
    assert found["slice_gap_mm"] == 5.0
    assert found["pixel_mm"] == 0.8
    assert found["soft_tissue_hu"] == pytest.approx(45, abs=6)
    assert found["lung_hu"] == pytest.approx(-820, abs=2)
    assert found["noise_hu"] == pytest.approx(12, rel=0.1)
    assert found["burden_percent"] == 7.5
    assert set(found) == set(PROPERTIES)


def test_distance_to_the_training_is_counted_beyond_its_range():
    ranges = training_ranges([{"slice_gap_mm": 3.0}, {"slice_gap_mm": 7.0, "noise_hu": 10.0}])
    assert ranges == {"slice_gap_mm": (3.0, 7.0), "noise_hu": (10.0, 10.0)}
    near = {"slice_gap_mm": 5.0, "noise_hu": 14.0}
    assert distances(near, ranges) == {"slice_gap_mm": 0.0, "noise_hu": pytest.approx(0.4)}
    assert warnings_of(near, ranges) == []
    told, = warnings_of({"slice_gap_mm": 0.75, "lung_hu": -800.0}, ranges)
    assert told == ("unlike the training scans: distance between slices 0.75 mm, trained on 3 to 7")


def test_a_threshold_is_chosen_where_the_case_has_no_say():
    """Case a is best at 0.2, b and c at 0.5; without a say of its own, a gets 0.5."""
    dice = {"a": (0.9, 0.5, 0.3), "b": (0.4, 0.6, 0.8), "c": (0.4, 0.6, 0.8)}
    rows = [{"case_id": case, "fold": fold, "isolated": False, "structure": "lesion",
             "threshold": value, "dice": score}
            for fold, (case, scores) in enumerate(dice.items())
            for value, score in zip((0.2, 0.4, 0.5), scores, strict=True)]
    rows.append({**rows[0], "isolated": True, "dice": 0.0})  # slices have no say
    frame = pd.DataFrame(rows)
    chosen, honest = choose_threshold(frame)
    assert chosen == 0.5
    assert honest.set_index("case_id").chosen.to_dict() == {"a": 0.5, "b": 0.2, "c": 0.2}
    assert honest.set_index("case_id").dice_chosen.to_dict() == {"a": 0.3, "b": 0.4, "c": 0.4}
    # As good as the best is good enough for a higher threshold.
    frame.loc[(frame.threshold == 0.5) & (frame.case_id != "a"), "dice"] = 0.0
    frame.loc[frame.threshold == 0.4, "dice"] = 0.5645
    assert choose_threshold(frame)[0] == 0.4


def test_the_package_is_made_whole_or_not_at_all(tmp_path, monkeypatch, checkpoint_file):
    """Training is replaced: a tiny checkpoint and its history for each fold."""
    def quickly(run, progress):
        for fold in range(run.config.n_folds):
            shutil.copy(checkpoint_file, run.path(run.fold_folder(fold), "checkpoint.pt"))
        return pd.DataFrame([
            {"structure": "lesion", "status": "ok", "case_id": case, "patient_id": f"p{case}",
             "reader": reader, "volume_ml": volume} for case, expert, automatic in (
                 ("1", 100.0, 80.0), ("2", 60.0, 120.0), ("3", 0.2, 9.0))
            for reader, volume in (("expert", expert), ("model", automatic))])

    config = dataclasses.replace(load_profile("quick"), pretrained=None)
    monkeypatch.setattr(release, "load_profile", lambda _: config)
    monkeypatch.setattr(release, "load_cohorts", lambda run: [])
    monkeypatch.setattr(release, "richest_folds", lambda run, cohorts, n: [1, 4][:n])
    monkeypatch.setattr(release, "cross_validate", quickly)
    output = tmp_path / "weights"
    arguments = {"results": tmp_path / "results", "progress": False, "networks": 2, "name": "tiny"}
    card = release.train_packaged(tmp_path, output, **arguments)
    unseen = read_card(output)["unseen"]
    assert [(one["case_id"], one["expert"], one["automatic"]) for one in unseen] == [
        ("1", 100.0, 80.0), ("2", 60.0, 120.0), ("3", 0.2, 9.0)]
    likely = likely_volume(200.0, unseen)
    assert (likely["low_ml"], likely["high_ml"], likely["patients"]) == (
        pytest.approx(200 * 0.2 / 9), 250.0, 3)
    assert (likely["chance"], likely["by_slices"]) == (0.5, 0)
    assert likely_volume(9.0, unseen)["low_ml"] == 0.0  # as much was marked where there was none
    assert likely_volume(0.0, unseen) is None
    assert likely_volume(200.0, []) is None
    files = packaged_checkpoints(output)
    assert [path.name for path in files] == ["tiny-1.pt", "tiny-4.pt"]
    saved = torch.load(files[0], weights_only=True)["state"]
    assert saved["main_head.0.weight"].dtype == torch.float16
    whole = load_network(checkpoint_file).state_dict()["main_head.0.weight"]
    again = load_network(files[0]).state_dict()["main_head.0.weight"]
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-3)

    before = card.read_bytes()
    with pytest.raises(ValueError, match="networks 6: expected 1 to 5"):
        release.train_packaged(tmp_path, output, **{**arguments, "networks": 6})
    monkeypatch.setattr(release, "_describe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        release.train_packaged(tmp_path, output, **arguments)
    assert card.read_bytes() == before
    assert packaged_checkpoints(output) == files


def test_the_folds_that_see_most_lesion_are_packaged(monkeypatch):
    """Five cases of as many folds; the two that leave the least out are taken, in order."""
    lesion = {"a": 50, "b": 3, "c": 40, "d": 10, "e": 20}
    targets = {}
    for name, n in lesion.items():
        targets[name] = np.zeros((1, 8, 8), np.uint8)
        targets[name].flat[:n] = 1 + n % 2
    names = list(lesion)
    monkeypatch.setattr(release, "load_splits", lambda *_: None)
    monkeypatch.setattr(release, "fold_cases", lambda _, fold: SimpleNamespace(
        train=[name for name in names if name != names[fold]]))
    monkeypatch.setattr(release, "prepared_cases", lambda run, cohorts, keys, progress: [
        SimpleNamespace(target=targets[key]) for key in keys])
    run = SimpleNamespace(config=SimpleNamespace(n_folds=5))
    assert release.richest_folds(run, [], 2) == [1, 3]
    assert release.richest_folds(run, [], 5) == [0, 1, 2, 3, 4]


def test_a_missing_encoder_is_known_before_the_training(tmp_path):
    with pytest.raises(FileNotFoundError, match="mobilenet_v2_imagenet"):
        release.train_packaged(tmp_path, tmp_path / "weights", results=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_slices_of_another_source_count_by_their_pixels():
    slices = pd.DataFrame({"structure": ["lesion", "ggo"], "case_id": ["s", "s"],
                           "patient_id": ["q", "q"], "n_expert": [400, 1], "n_found": [200, 1]})
    found = release.unseen_volumes(pd.DataFrame(
        {"structure": "lesion", "status": ["ok", "ok"], "case_id": "1", "patient_id": "p",
         "reader": ["expert", "model"], "volume_ml": [50.0, 100.0]}), slices)
    assert [(one["unit"], one["expert"] / one["automatic"]) for one in found] == [
        ("mL", 0.5), ("pixels of a slice", 2.0)]


def test_with_many_patients_the_most_extreme_are_told_apart():
    unseen = [{"patient_id": k, "unit": "mL" if k else "pixels of a slice",
               "expert": 100.0 * ratio, "automatic": 100.0}
              for k, ratio in enumerate((0.0, 0.7, *[1.0] * 6, 1.5, 4.0))]
    likely = likely_volume(90.0, unseen)
    # 100 pixels falsely marked are no 100 mL: the range does not begin at 0.
    assert (likely["low_ml"], likely["high_ml"], likely["chance"]) == (
        pytest.approx(63.0), pytest.approx(135.0), 7 / 11)
    assert (likely["lowest_ml"], likely["highest_ml"]) == (0.0, 360.0)
    assert likely_words(likely) == (
        "an expert's volume of any lesion: 63 to 135 mL (nominal chance 64%), 0 to 360 mL (nominal "
        "chance 82%), by the errors on 10 patients that were not trained on, 1 of them by one "
        "slice")
    unseen[-1]["automatic"] = 0.0
    without_end = likely_volume(100.0, unseen)
    assert without_end["highest_ml"] is None
    assert "0 mL or more" in likely_words(without_end)
    missed = [{**one, "expert": 5.0, "automatic": 0.0} for one in unseen]
    assert likely_volume(100.0, missed) is None


def test_what_segment_says_is_likely_is_in_table_and_record(chest_file, weights, monkeypatch):
    """An interval by what the card says of unseen patients; of other networks there is none."""
    from deeplung_nb.reading import provenance
    from deeplung_nb.reading.segment import Segmenter

    card = read_card(weights)
    card["unseen"] = [{"case_id": c, "patient_id": c, "unit": "mL", "expert": e, "automatic": 10.0}
                      for c, e in (("a", 5.0), ("b", 10.0), ("c", 30.0))]
    monkeypatch.setattr(provenance, "read_card", lambda: card)
    files = packaged_checkpoints(weights)
    result = Segmenter(files)(read_scan(chest_file), progress=False)
    lesion = result.table.set_index("structure").loc["lesion"]
    assert lesion.volume_ml > 0
    assert lesion.likely_low_ml == pytest.approx(lesion.volume_ml * 0.5)
    assert lesion.likely_high_ml == pytest.approx(lesion.volume_ml * 3.0)
    assert result.provenance["likely_lesion"]["chance"] == lesion.likely_chance == 0.5
    assert result.table.set_index("structure").drop("lesion").likely_low_ml.isna().all()
    alone = Segmenter(files[:1])(read_scan(chest_file), progress=False)
    assert alone.provenance["likely_lesion"] is None


def test_a_cohort_that_is_only_tested_is_not_said_to_have_trained():
    from deeplung_nb.reading.provenance import describe_network

    assert "coronacases_expert" in load_profile("public").cohorts
    told = describe_network(packaged_checkpoints())
    assert told["trained_on"] == "cohorts medseg1, medseg2"


def test_what_a_network_was_trained_on_is_said_without_a_list_of_cohorts(
        checkpoint_file, tmp_path, monkeypatch):
    from deeplung_nb.reading.provenance import describe_network

    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path))
    assert "phantom" in describe_network([checkpoint_file])["trained_on"]
