"""Training: schedule, resume after a kill, checkpoints, determinism."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import deeplung_nb.learning.train as learning_train
from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.learning.dataset import PreparedCase
from deeplung_nb.learning.train import (
    LAST,
    _State,
    make_optimiser,
    make_scheduler,
    train,
    train_whole,
)
from deeplung_nb.learning.watchers import Watcher
from deeplung_nb.network.checkpoint import CHECKPOINT, describe_training, load_network, save_network
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.device import autocast
from deeplung_nb.runs.config import Config, NetworkConfig, TrainingConfig, UNetConfig, load_profile

SMALL = Config(
    profile="test", cohorts=("none",), n_folds=2,
    network=NetworkConfig(image_size=32, n_neighbours=1, dense_blocks=1, hidden=2),
    training=TrainingConfig(optimiser="adamw", schedule="cosine", keep="last", max_epochs=3,
                            steps_per_epoch=2, batch_slices=2, lesion_fraction=0.5),
)


def make_cases(n=2, size=32):
    rng = np.random.default_rng(0)
    cases = []
    for k in range(n):
        hu = rng.normal(-850, 40, (6, size, size))
        target = np.zeros((6, size, size), np.uint8)
        target[1:4, 8:20, 6:18] = 1
        target[2:3, 22:28, 20:28] = 2
        hu[target == 1] += 400
        hu[target == 2] += 880
        cases.append(PreparedCase(f"c{k}", np.rint(hu).astype(np.int16), target))
    return cases


class StopAfter(Watcher):
    """Asks for a stop after so many epochs, or steps."""

    def __init__(self, epochs=None, steps=None):
        self.epochs, self.steps, self.heard = epochs, steps, []

    def step(self, epoch, loss):
        self.heard.append((epoch, loss))
        return len(self.heard) == self.steps

    def epoch(self, row, network):
        assert not network.training
        return row["epoch"] + 1 == self.epochs

    def end(self, finished):
        self.heard.append(finished)


def weights(folder):
    return load_network(folder / CHECKPOINT).state_dict()


def assert_same_weights(a, b):
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def run(folder, config=SMALL, **options):
    return train(make_cases(), make_cases(1), config, folder, seed=5, progress=False,
                 device=torch.device("cpu"), **options)


def test_a_training_that_stopped_between_epochs_ends_as_an_uninterrupted_one(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", watchers=[StopAfter(1)])
    parts = run(tmp_path / "parts")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), parts.drop(columns="seconds"))


FEW = dataclasses.replace(
    SMALL, network=dataclasses.replace(SMALL.network, output="softmax"),
    training=dataclasses.replace(SMALL.training, class_weight=1.0, region_weight=0.5,
                                 warmup_steps=3, last_rate=0.1, gradient_norm=1.0,
                                 average_decay=0.9, main_branch_loss=0.4, flip=True, hu_noise=20.0))


def test_averaged_weights_are_kept_and_survive_an_interruption(tmp_path):
    whole = run(tmp_path / "whole", FEW)
    run(tmp_path / "parts", FEW, watchers=[StopAfter(1)])
    parts = run(tmp_path / "parts", FEW)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), parts.drop(columns="seconds"))
    last = torch.load(tmp_path / "whole" / LAST, weights_only=True)
    kept, own = weights(tmp_path / "whole"), last["state"]
    assert not torch.equal(kept["main_head.0.weight"], own["main_head.0.weight"])
    assert torch.equal(kept["main_head.0.weight"], last["average"]["module.main_head.0.weight"])


def test_the_main_branch_has_a_loss_of_its_own_where_the_settings_say_so(tmp_path):
    config = dataclasses.replace(SMALL, training=dataclasses.replace(
        SMALL.training, max_epochs=1, steps_per_epoch=1))
    more = dataclasses.replace(config, training=dataclasses.replace(
        config.training, main_branch_loss=0.4))
    assert run(tmp_path / "b", more).train_loss[0] != run(tmp_path / "a", config).train_loss[0]


def test_the_rate_rises_step_by_step_and_gradients_are_clipped(tmp_path, monkeypatch):
    rates, norms = [], []
    step, clip = torch.optim.AdamW.step, torch.nn.utils.clip_grad_norm_

    def noted(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    def clipped(parameters, norm):
        parameters = list(parameters)
        found = clip(parameters, norm)
        norms.append(float(torch.linalg.vector_norm(torch.stack([
            torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]))))
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
    history = run(tmp_path, FEW)
    full = history.lr
    assert rates[:3] == pytest.approx([full[0] / 3, full[0] * 2 / 3, full[1]])
    assert max(norms) <= 1.0 + 1e-4
    assert full[2] > 0.1 * full[0]


def test_the_main_branch_goes_first_where_the_settings_say_so(tmp_path):
    config = dataclasses.replace(FEW, first=dataclasses.replace(FEW.training, max_epochs=2))
    history = train_whole(make_cases(), make_cases(1), config, tmp_path, seed=5, progress=False,
                          device=torch.device("cpu"))
    assert len(history) == 3
    alone = load_network(tmp_path / "main" / CHECKPOINT)
    assert not alone.config.attention
    whole = run(tmp_path / "from_scratch", FEW)
    # It begins where the main branch ended, not anew.
    assert history.train_loss[0] != pytest.approx(whole.train_loss[0], rel=1e-3)
    assert load_network(tmp_path / CHECKPOINT).config.attention
    again = train_whole(make_cases(), make_cases(1), config, tmp_path, seed=5, progress=False,
                        device=torch.device("cpu"))
    pd.testing.assert_frame_equal(history, again)


def test_a_training_that_starts_from_weights_has_them(tmp_path):
    run(tmp_path / "a")
    still = dataclasses.replace(SMALL, training=dataclasses.replace(
        SMALL.training, learning_rate=2e-7, max_epochs=1, weight_decay=0.0))
    run(tmp_path / "b", still, start=tmp_path / "a" / CHECKPOINT)
    after = weights(tmp_path / "b")
    for name, tensor in weights(tmp_path / "a").items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(tensor, after[name], atol=1e-5, rtol=0)


@pytest.mark.nightly
def test_a_training_stopped_in_an_epoch_does_that_epoch_again(tmp_path):
    run(tmp_path / "whole")
    stopping, other = StopAfter(steps=3), StopAfter()
    history = run(tmp_path / "parts", watchers=[stopping, other])
    assert len(history) == 1  # two steps an epoch: the second was begun
    assert [epoch for epoch, _ in stopping.heard[:-1]] == [0, 0, 1]
    assert len(other.heard) == 4  # who is told second hears of the last step too
    assert stopping.heard[-1] is False
    run(tmp_path / "parts", watchers=[other])
    assert other.heard[-1] is True
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 2)])
def test_the_weights_are_kept_that_the_settings_ask_for(tmp_path, monkeypatch, keep, epoch):
    losses = iter((0.5, 0.2, 0.4))
    dice = {f"dice_{name}": 0.0 for name in LESION_STRUCTURES}
    monkeypatch.setattr(learning_train, "validate",
                        lambda *_: {"validation_loss": next(losses), **dice})
    training = dataclasses.replace(SMALL.training, keep=keep)
    run(tmp_path, dataclasses.replace(SMALL, training=training))
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["epoch"] == epoch
    assert saved["validation_loss"] == (0.5, 0.2, 0.4)[epoch]


KILLED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_train
torch.set_num_threads(int(sys.argv[3]))
test_train.run(Path(sys.argv[1]))
"""


def kill_after(folder, n_epochs):
    """SIGKILL as soon as the folder tells of so many epochs, wherever the process is by then."""
    tests = str(__import__("pathlib").Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), tests, str(torch.get_num_threads())])
    history, deadline = folder / "history.csv", time.monotonic() + 120
    while not history.exists() or len(history.read_text().splitlines()) <= n_epochs:
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no such epoch within two minutes"
        time.sleep(0.002)
    process.kill()
    process.wait()


def kill_at_start(folder):
    """SIGKILL while the first epoch runs: when the folder is there, or soon after."""
    tests = str(__import__("pathlib").Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), tests, str(torch.get_num_threads())])
    deadline = time.monotonic() + 120
    while not folder.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()


@pytest.mark.nightly
def test_a_training_killed_three_times_ends_in_the_same_bytes(tmp_path):
    """Before its first epoch is whole, after that, and in the next one."""
    folder = tmp_path / "killed"
    for n_epochs in (0, 1, 2):
        kill_after(folder, n_epochs) if n_epochs else kill_at_start(folder)
    run(folder)
    run(tmp_path / "whole")
    assert_same_weights(tmp_path / "whole", folder)
    assert (folder / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def test_a_finished_training_is_found_and_not_repeated(tmp_path):
    run(tmp_path)
    before = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    again = run(tmp_path)
    assert len(again) == 3
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    train(make_cases(), make_cases(1), SMALL, tmp_path / "c", seed=6, progress=False)
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_training_learns_a_plain_pattern(tmp_path):
    training = dataclasses.replace(
        SMALL.training, max_epochs=8, steps_per_epoch=8, batch_slices=4, learning_rate=5e-3)
    history = run(tmp_path, dataclasses.replace(SMALL, training=training))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["dice_lesion"].iloc[-1] > 0.7


def test_the_plateau_schedule_makes_four_reductions_and_ends_at_1e_minus_7():
    config = TrainingConfig()
    optimiser = make_optimiser(torch.nn.Linear(1, 1), config)
    scheduler = make_scheduler(optimiser, config)
    rates, epochs = [1e-3], 0
    while rates[-1] > config.stop_learning_rate * 1.001:
        scheduler.step(1.0)
        epochs += 1
        if not np.isclose(optimiser.param_groups[0]["lr"], rates[-1], rtol=1e-9):
            rates.append(optimiser.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
    # The first epoch sets the best loss; then patience 10 is used up four times.
    assert epochs == 1 + 4 * 11


def test_training_ends_when_the_learning_rate_is_used_up(tmp_path):
    training = dataclasses.replace(
        SMALL.training, schedule="plateau", keep="best", optimiser="sgd", max_epochs=500,
        steps_per_epoch=1, plateau_patience=0, learning_rate=1e-30, stop_learning_rate=1e-34)
    history = run(tmp_path, dataclasses.replace(SMALL, training=training))
    assert len(history) < 50


def test_the_paper_profile_holds_the_settings_of_the_paper():
    config = load_profile("paper")
    assert (config.n_folds, config.network.image_size, config.network.n_slices) == (5, 256, 11)
    t = config.training
    assert (t.optimiser, t.momentum, t.learning_rate, t.weight_decay) == ("sgd", 0.9, 1e-3, 1e-6)
    assert (t.plateau_factor, t.plateau_patience, t.stop_learning_rate) == (0.1, 10, 1e-7)
    assert (t.batch_slices, t.rotation_degrees, t.translation_pixels) == (32, 10, 10)
    assert t.scale_range == (0.9, 1.05)


def test_settings_survive_json():
    for name in ("quick", "public", "paper"):
        config = load_profile(name)
        assert Config.from_dict(__import__("json").loads(
            __import__("json").dumps(config.to_dict()))) == config


def test_a_checkpoint_needs_no_pickled_code(tmp_path):
    path = tmp_path / CHECKPOINT
    save_network(DeepLungNet(SMALL.network), path, describe_training(SMALL), epoch=0)
    saved = torch.load(path, weights_only=True)
    assert saved["network"]["image_size"] == 32
    assert load_network(path).config == SMALL.network


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint of this package"):
        load_network(path)
    with pytest.raises(FileNotFoundError, match="Train a fold"):
        load_network(tmp_path / "absent.pt")


def test_a_full_disk_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, watchers=[StopAfter(1)])
    before = {name: (tmp_path / name).read_bytes() for name in (CHECKPOINT, LAST, "history.csv")}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


@pytest.mark.parametrize(("field", "value"), [
    ("optimiser", "adam"), ("schedule", "step"), ("keep", "first")])
def test_unknown_settings_are_named(tmp_path, field, value):
    training = dataclasses.replace(SMALL.training, **{field: value})
    with pytest.raises(ValueError, match=value):
        run(tmp_path, dataclasses.replace(SMALL, training=training))


def test_without_validation_cases_nothing_may_be_chosen_by_them(tmp_path):
    options = {"seed": 5, "progress": False, "device": torch.device("cpu")}
    history = train(make_cases(), [], SMALL, tmp_path / "a", **options)
    assert len(history) == 3
    assert history[["validation_loss", "dice_lesion"]].isna().all(axis=None)
    assert history.train_loss.notna().all()
    choosing = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, keep="best"))
    with pytest.raises(ValueError, match="no validation cases, but schedule 'cosine' and keep 'be"):
        train(make_cases(), [], choosing, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


def test_precision_is_float32_or_bfloat16():
    with pytest.raises(ValueError, match="float16"):
        autocast(torch.device("cpu"), "float16")


def test_bfloat16_trains_too(tmp_path):
    training = dataclasses.replace(SMALL.training, precision="bfloat16", max_epochs=1)
    history = run(tmp_path, dataclasses.replace(SMALL, training=training))
    assert np.isfinite(history["train_loss"]).all()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["unet2d", "unet3d"])
def test_a_baseline_trains_by_the_same_code_and_resumes(name, tmp_path):
    config = dataclasses.replace(SMALL, baselines=(
        UNetConfig(name, 2, learning_rate=1e-3, max_epochs=2),))
    history = run(tmp_path / "whole", config, name=name)
    run(tmp_path / "parts", config, name=name, watchers=[StopAfter(1)])
    run(tmp_path / "parts", config, name=name)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert len(history) == 2
    assert history.lr.iloc[0] == 1e-3
    assert load_network(tmp_path / "whole" / CHECKPOINT).config == config.baselines[0]


def test_a_baseline_begins_at_its_own_rate_or_at_ours():
    for own, wanted in ((3e-3, 3e-3), (None, 1e-3)):
        config = dataclasses.replace(SMALL, baselines=(UNetConfig("unet2d", 2, own, 7),))
        state = _State.new(config, "unet2d", 0, torch.device("cpu"), None, None)
        assert state.optimiser.param_groups[0]["lr"] == wanted
        assert state.settings.max_epochs == 7


def test_a_baseline_that_the_settings_lack_is_named(tmp_path):
    with pytest.raises(ValueError, match="'unet2d': this configuration has deeplung"):
        run(tmp_path, name="unet2d")
