"""Training by several processes: the step of one process, whatever their number.

The processes are real, as `torchrun` starts them, and talk through gloo on this machine.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import team_of_processes as script
import torch
from test_experiment import study  # noqa: F401

from deeplung_nb.__main__ import main
from deeplung_nb.learning.dataset import augment, change_hu
from deeplung_nb.learning.experiment import train_fold
from deeplung_nb.learning.team import SharedBatchNorm, Team
from deeplung_nb.learning.train import LAST
from deeplung_nb.network.checkpoint import CHECKPOINT, build_network, load_network
from deeplung_nb.runs import open_run

HERE = Path(__file__).resolve().parent


def start_team(n, *arguments, **options):
    """`torchrun` on this machine, on any free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr",
               "127.0.0.1", "--nproc-per-node", str(n), *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, text=True, capture_output=True, timeout=600,
                          check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What a team of two left."""
    folder = tmp_path_factory.mktemp("two")
    ended = start_team(2, HERE / "team_of_processes.py", folder)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def apart(one, other):
    """The distance of two states: of weights, and of what batch norm has seen."""
    assert one.keys() == other.keys()

    def total(seen):
        return sum(float((one[name].double() - other[name].double()).square().sum())
                   for name in one if ("running" in name) == seen) ** 0.5
    return np.array([total(False), total(True)])


def distance(folder, other, name):
    """Between two trained networks, as a share of how far training took the second."""
    network, config = script.NETWORKS[name]
    torch.manual_seed(5)
    start = build_network(config, network).state_dict()
    one, other = (load_network(place / CHECKPOINT).state_dict() for place in (folder, other))
    return max(apart(one, other) / np.maximum(apart(other, start), 1e-9))


@pytest.mark.nightly
def test_the_command_trains_a_fold_by_two_processes_which_a_study_then_finds(
        study, tmp_path, monkeypatch, capsys):  # noqa: F811
    profile = tmp_path / "study.json"
    settings = dataclasses.replace(study.config, threads=1, training=script.SGD)
    profile.write_text(json.dumps(settings.to_dict()))
    given = ["train", "--profile", profile, "--data", study.data, "--results", tmp_path / "runs"]
    ended = start_team(2, "-m", "deeplung_nb", *given, "--fold", 1)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("fold 1: 3 epochs by 2 processes") == 1  # the first one speaks
    run = open_run(str(profile), study.data, tmp_path / "runs")
    facts = json.loads((run.folder / "facts" / "train_fold_1.json").read_text())
    assert facts["processes"] == 2
    assert not list(run.folder.glob("fold-0/*"))
    before = (run.folder / "fold-1" / CHECKPOINT).read_bytes()
    monkeypatch.setattr("deeplung_nb.learning.train.train_epoch", lambda *_: pytest.fail("again"))
    assert train_fold(run, 1, progress=False).attrs["finished"]
    assert (run.folder / "fold-1" / CHECKPOINT).read_bytes() == before
    assert main([*map(str, given), "--fold", "3"]) == 1
    assert "--fold 3: expected 0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in script.NETWORKS if name != "interrupted"])
def test_two_processes_train_the_network_of_one(two, tmp_path, name):
    alone = script.train_one(tmp_path, name)
    first, second = (pd.read_csv(two / f"{name}-{rank}-of-2.csv") for rank in (0, 1))
    pd.testing.assert_frame_equal(first, second)  # each of them knows the whole
    expected = alone.drop(columns="seconds").astype(first.dtypes)
    pd.testing.assert_frame_equal(first, expected, rtol=1e-4, atol=1e-5)
    assert distance(two / name, tmp_path / name, name) < 2e-4


def test_a_training_goes_on_with_another_number_of_processes(two, tmp_path):
    """Two began it and were stopped, one ends it: as if one had done it all."""
    begun = torch.load(two / "interrupted" / LAST, weights_only=True)
    assert len(begun["history"]) == script.EPOCHS_BEFORE
    assert script.train_one(two, "interrupted").attrs["finished"]
    script.train_one(tmp_path, "interrupted")
    assert distance(two / "interrupted", tmp_path / "interrupted", "interrupted") < 2e-4


def test_a_step_in_parts_is_another_step_where_the_loss_is_no_mean(tmp_path):
    """What the setting says of itself: so a study that uses it must say so."""
    script.train_one(tmp_path, "parts")
    name, config = script.NETWORKS["parts"]
    whole = script.settings()
    assert (config.training.accumulate, whole.training.accumulate) == (3, 1)
    script.train(script.cases(), [], whole, tmp_path / "whole", seed=5, progress=False, name=name,
                 device=torch.device("cpu"))
    assert distance(tmp_path / "parts", tmp_path / "whole", "parts") > 0.01


def test_gradients_of_parts_add_up(tmp_path, monkeypatch):
    """Without batch norm, and with a loss that is a mean over pixels, parts change nothing."""
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, x: x)
    folders = {}
    for accumulate in (1, 2, 4):
        config = script.settings(rmi_weight=0.0, accumulate=accumulate, batch_slices=8)
        folders[accumulate] = tmp_path / str(accumulate)
        script.train(script.cases(), [], config, folders[accumulate], seed=5, progress=False,
                     device=torch.device("cpu"))
    for accumulate in (2, 4):
        assert distance(folders[accumulate], folders[1], "parts") < 2e-4


def test_each_process_makes_its_windows_as_one_would_make_them():
    rng = np.random.default_rng(0)
    hu = torch.from_numpy(rng.normal(-800, 100, (5, 3, 16, 16)).astype(np.float32))
    target = torch.from_numpy(rng.integers(0, 3, (5, 1, 16, 16)).astype(np.uint8))
    whole = augment(hu, target, script.SGD, np.random.default_rng(1))
    for rows in (np.array([0, 1, 2]), np.array([3, 4]), np.array([1, 4])):
        part = augment(hu, target, script.SGD, np.random.default_rng(1), rows)
        for some, every in zip(part, whole, strict=True):
            assert torch.equal(some, every[rows])
    assert not torch.equal(change_hu(hu, script.SGD, np.random.default_rng(1)), hu)


def test_a_share_for_each_and_never_none():
    shares = [Team(rank, 3).share(np.arange(8)) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), np.arange(8))
    with pytest.raises(ValueError, match="2 windows for 3 processes"):
        Team(0, 3).share(np.arange(2))


def test_one_process_is_left_as_it_is():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    assert Team().join(network) is network
    assert not any(isinstance(module, SharedBatchNorm) for module in network.modules())
    scores = torch.ones(2, requires_grad=True)
    assert Team().gather(scores) is scores
