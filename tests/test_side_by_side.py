"""A study whose folds are trained, and whose cases are measured, by several processes."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from test_experiment import write_study

from deeplung_nb import workers
from deeplung_nb.learning import experiment
from deeplung_nb.runs import open_run
from deeplung_nb.runs.config import TrainingConfig, UNetConfig

SIZE = 32


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three folds of two networks on seven chests, really trained, with one thread."""
    manifests, data, config = write_study(tmp_path_factory.mktemp("study"))
    return manifests, data, dataclasses.replace(
        config, threads=1, network=dataclasses.replace(config.network, image_size=SIZE),
        training=TrainingConfig(optimiser="sgd", schedule="cosine", keep="last", max_epochs=3,
                                steps_per_epoch=2, batch_slices=4),
        baselines=(UNetConfig("unet2d", 2),))


@pytest.fixture(autouse=True)
def _manifests_of_the_study(small, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(small[0]))


def new_run(small, folder):
    _, data, config = small
    return open_run(config=config, data=data, results=folder)


def whole_study(run, n_workers):
    experiment.cross_validate(run, progress=False, n_workers=n_workers)
    experiment.validate_external(run, progress=False, n_workers=n_workers)


def left(run):
    """The bytes of tables and masks, and the weights."""
    files = {path.relative_to(run.folder).as_posix(): path.read_bytes()
             for pattern in ("measurements.csv", "measured/**/*.json", "masks/**/*.nii.gz")
             for path in run.folder.glob(pattern)}
    networks = {path.parent.relative_to(run.folder).as_posix():
                torch.load(path, weights_only=True)["state"]
                for path in run.folder.glob("**/checkpoint.pt")}
    return files, networks


def assert_same(one, other):
    (files, networks), (their_files, their_networks) = left(one), left(other)
    assert files == their_files
    assert networks.keys() == their_networks.keys()
    assert len(networks) == 6
    for name, state in networks.items():
        assert all(torch.equal(state[key], their_networks[name][key]) for key in state), name


@pytest.fixture(scope="module")
def one(small, tmp_path_factory):
    """The study, done by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPLUNG_MANIFESTS", str(small[0]))
        run = new_run(small, tmp_path_factory.mktemp("one"))
        whole_study(run, 1)
    return run


@pytest.fixture(scope="module")
def pool():
    with workers.Pool(2) as started:
        yield started


CLIENT = """
import sys
from deeplung_nb.learning import experiment
from deeplung_nb.runs import read_run
if __name__ == "__main__":
    run = read_run(sys.argv[1], data=sys.argv[2])
    experiment.cross_validate(run, progress=False, n_workers=2)
    experiment.validate_external(run, progress=False, n_workers=2)
"""


def kill_the_busiest(pid):
    """SIGKILL for the worker of a process that has done most; all processes that it has started."""
    started = psutil.Process(pid).children(recursive=True)
    max(started, key=lambda process: process.cpu_times().user).kill()
    return started


def is_left(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.nightly
def test_two_workers_leave_the_bytes_of_one_process_though_one_is_killed(small, one, tmp_path):
    two = new_run(small, tmp_path / "two")
    program = tmp_path / "client.py"
    program.write_text(CLIENT)
    client = subprocess.Popen([sys.executable, program, two.folder, two.data], text=True,
                              stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not list(two.folder.glob("**/last.pt")):  # until a network has an epoch
        assert client.poll() is None, client.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = kill_the_busiest(client.pid)
    _, errors = client.communicate(timeout=500)
    assert client.returncode == 0, errors[-3000:]
    assert_same(one, two)
    assert not [process for process in started if is_left(process)]
    facts = json.loads((two.folder / "facts" / "train_fold_0.json").read_text())
    assert facts["threads"] == 1


def test_what_is_done_is_not_handed_out_again(one, monkeypatch):
    monkeypatch.setattr(workers, "local_cluster", lambda *_, **__: pytest.fail("a cluster began"))
    before = left(one)
    whole_study(one, 2)
    assert left(one)[0] == before[0]


def test_an_error_of_a_worker_is_raised_here(pool):
    with pytest.raises(ZeroDivisionError):
        list(pool.each(one_divided_by, [1, 0, 2]))


def test_a_worker_that_dies_twice_in_a_while_is_not_given_up(monkeypatch):
    """Dask looks for it after a time, finds it gone for the moment, and would close its place."""
    from dask import config
    from dask.utils import parse_timedelta

    asked = []
    monkeypatch.setattr("distributed.LocalCluster", lambda **_: asked.append(parse_timedelta(
        config.get("distributed.deploy.lost-worker-timeout"))) or contextlib.nullcontext())
    with workers.local_cluster(1):
        pass
    assert asked[0] > 3600


def one_divided_by(n):
    return 1 / n


def end(n):
    os._exit(n)


@pytest.mark.nightly
def test_work_that_ends_its_processes_is_given_up_with_a_remedy(pool):
    with pytest.raises(workers.WorkersError, match="with fewer workers"):
        list(pool.each(end, [1]))


def test_the_number_of_workers_comes_from_the_environment(monkeypatch):
    assert experiment._how_many(None) == 1
    monkeypatch.setenv(experiment.WORKERS, "3")
    assert experiment._how_many(None) == 3
    assert experiment._how_many(2) == 2
    monkeypatch.setenv(experiment.WORKERS, "many")
    with pytest.raises(ValueError, match="DEEPLUNG_WORKERS=many: expected a number"):
        experiment._how_many(None)
