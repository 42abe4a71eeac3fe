"""The benchmark: fair turns, each job's own memory, a tidy table. No time is tested."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.__main__ import main
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.imaging.plausibility import examine
from deeplung_nb.learning import benchmark
from deeplung_nb.learning.benchmark import Job, time_jobs, write_ct
from deeplung_nb.report.counts import fastest_ways
from deeplung_nb.runs.config import NetworkConfig

TINY = NetworkConfig(image_size=32, n_neighbours=1, dense_blocks=1, hidden=1, lstm_layers=1)


def job(**options):
    return Job(**{"model": "ours", "n_slices": 2, "network": TINY, "threads": 1} | options)


@pytest.mark.nightly
def test_a_row_says_what_was_done_on_what_with_which_memory():
    jobs = [job(), job(way="fast"), job(task="training", n_slices=2),
            job(model="unet2d", width=2, way="channels last"), job(model="convlstm", way="fast")]
    frame = time_jobs(jobs, repeats=2, progress=False)
    assert frame[["task", "model", "way"]].to_numpy().tolist() == [
        ["network", "ours", "plain"], ["network", "ours", "fast"],
        ["training", "ours", "plain"], ["network", "unet2d", "channels last"],
        ["network", "convlstm", "fast"]]
    assert (frame["repeats"] == 2).all()
    assert (frame["seconds_min"] <= frame["seconds_median"]).all()
    assert (frame["seconds_median"] <= frame["seconds_max"]).all()
    assert frame["peak_memory_gb"].between(0.1, 3).all()
    assert (frame["matmul_gflops"] > 0.1).all()
    assert frame["gflop_per_slice"][0] == frame["gflop_per_slice"][1] > 0
    assert frame["torch"].notna().all()
    assert len(fastest_ways(frame)) == 3


def test_flops_are_those_of_the_convolutions_by_hand():
    plain = NetworkConfig(image_size=32, n_neighbours=1, hidden=1, lstm_layers=1, dense_blocks=1)
    without = NetworkConfig(image_size=32, attention=False, dense_blocks=1)
    added = benchmark._gflop_per_slice(job(network=plain)) - benchmark._gflop_per_slice(
        job(network=without))
    # Three slices to four gates; two states to four gates; two heads of 1 -> 1 -> 1 -> 3.
    by_hand = 2 * 32 * 32 * (3 * 9 * 4 + 2 * 9 * 4 + 2 * (9 + 9 + 3)) / 1e9
    assert added == pytest.approx(by_hand)


def test_jobs_take_turns_and_long_scans_come_once_at_the_end(monkeypatch):
    done = []

    class InTurn:
        def __init__(self, *_, **__): ...
        def __enter__(self): return self
        def __exit__(self, *_): ...
        def map(self, _, jobs): return [1.0 for _ in jobs]

    monkeypatch.setattr(benchmark, "_work_of", lambda one: lambda: done.append(one.n_slices))
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", InTurn)
    monkeypatch.setattr(benchmark, "machine", dict)
    frame = time_jobs([job(), job(n_slices=500), job(n_slices=3)], repeats=2, progress=False,
                      memory_of=lambda one: one.n_slices < 500)
    assert frame["peak_memory_gb"].isna().tolist() == [False, True, False]
    assert done == [2, 3, 2, 3, 2, 3, 500]
    assert frame["repeats"].tolist() == [2, 1, 2]


def test_the_ct_of_the_benchmark_is_one(tmp_path):
    write_ct(tmp_path / "ct.nii.gz", 24)
    scan = read_scan(tmp_path / "ct.nii.gz")
    assert scan.shape == (24, 512, 512)
    lungs = lungs_for(scan)
    assert 1500 < lungs.mask.sum() * scan.voxel_mm3 / 1000 < 9000
    assert not examine(scan, lungs).errors


def test_of_several_ways_the_fastest_in_float32_stands_in_the_tables():
    rows = pd.DataFrame({
        "task": ["network"] * 4 + ["file"], "model": ["ours"] * 5, "width": 0, "device": "cpu",
        "hardware": "Chip", "n_slices": [16, 16, 16, 120, 16],
        "way": ["plain", "fast", "bfloat16", "fast", "fast"],
        "seconds_median": [3.0, 2.0, 1.0, 9.0, 0.1]})
    assert fastest_ways(rows)["seconds_median"].tolist() == [2.0, 9.0]


@pytest.mark.parametrize("options", [["--slices", "0"], ["--repeats", "0"], ["--training", "-8"]])
def test_numbers_that_are_none_are_refused(tmp_path, capsys, options):
    assert main(["benchmark", "--output", str(tmp_path / "t.csv"), *options]) == 1
    assert "expected whole numbers from 1 on" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_an_output_that_can_not_be_written_is_said_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["benchmark", "--output", str(tmp_path / "file" / "t.csv")]) == 1
    assert "file" in capsys.readouterr().err


def test_bfloat16_is_asked_of_the_processor():
    assert isinstance(benchmark.has_bfloat16(), bool | np.bool_)


def test_the_page_of_performance_is_that_of_its_csv():
    docs = Path(benchmark.__file__).parents[2] / "docs"
    made = runpy.run_path(str(docs.parent / "tools" / "make_performance.py"))["page"](
        pd.read_csv(docs / "timings.csv"))
    assert made == (docs / "performance.md").read_text(encoding="utf-8")
    assert "{{" not in made
