"""The whole sequence, small: every notebook runs, and the same question gives the same bytes."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from deeplung_nb import measurements
from deeplung_nb.__main__ import main
from deeplung_nb.cohorts import cases, manifest, splits
from deeplung_nb.files import sha256_of
from deeplung_nb.imaging.phantom.make import write_cohort
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.learning import evaluate, experiment, train
from deeplung_nb.reading import segment
from deeplung_nb.reproduce import NotebookError, notebooks, reproduce, run_notebook
from deeplung_nb.runs import open_run
from deeplung_nb.runs.config import UNetConfig, load_profile
from deeplung_nb.runs.registry import manifest_folder
from tests.report.fakes import fake_timings


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Eight phantoms, three folds, a few steps: manifests and settings of a very small study."""
    folder = tmp_path_factory.mktemp("study")
    patch = pytest.MonkeyPatch()
    source = manifest_folder()
    manifests = folder / "manifests"
    manifests.mkdir()
    shutil.copy(source / "cohorts.toml", manifests)
    shutil.copy(source / "published.csv", manifests)
    table = pd.read_csv(source / "phantom.csv", dtype=str, keep_default_na=False)
    ids = ["P001", "P002", "P003", "P004", "P005", "P006", "X001", "X002"]
    table = table[table.case_id.isin(ids)]
    # The same chests on a coarser grid: an eighth of the voxels.
    size, pixel = table.ph_size.astype(int), table.ph_pixel_mm.astype(float)
    n_slices, gap = table.n_slices.astype(int), table.slice_gap_mm.astype(float)
    table = table.assign(
        ph_size=size // 2, ph_pixel_mm=(pixel * size / (size // 2)).round(4),
        n_slices=n_slices // 2, slice_gap_mm=(gap * n_slices / (n_slices // 2)).round(4))
    table.to_csv(manifests / "phantom.csv", index=False)
    registry = manifests / "cohorts.toml"
    # Fewer cases than the cohort has: its expected counts would rightly object.
    registry.write_text("\n".join(
        line for line in registry.read_text().splitlines() if not line.startswith("expected")))
    patch.setenv("DEEPLUNG_MANIFESTS", str(manifests))
    frame = manifest.read_manifest(manifests / "phantom.csv").frame
    splits.write_splits(splits.make_splits(frame, 3, 1, 0.3), manifests / "splits_phantom.csv")
    quick = load_profile("quick")
    config = dataclasses.replace(
        quick, profile="small", n_folds=3, threads=1,
        network=dataclasses.replace(quick.network, image_size=48, n_neighbours=1, hidden=2),
        baselines=(UNetConfig("unet2d", 4, max_epochs=1), UNetConfig("unet3d", 4, max_epochs=1)),
        first=dataclasses.replace(quick.first, max_epochs=1, steps_per_epoch=24),
        training=dataclasses.replace(quick.training, max_epochs=2, steps_per_epoch=4,
                                     batch_slices=4, validation_slices=6))
    settings = folder / "small.json"
    settings.write_text(json.dumps(config.to_dict()))
    yield {"folder": folder, "profile": str(settings), "manifests": manifests}
    patch.undo()


@pytest.fixture(autouse=True)
def _manifests_of_the_study(small, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(small["manifests"]))


@pytest.fixture(scope="module")
def run(small):
    """The whole study. How long networks take is not timed anew: `test_benchmark` does that."""
    results = small["folder"] / "a"
    fake_timings().to_csv(open_run(small["profile"], results=results).path("timings.csv"),
                          index=False)
    return reproduce(small["profile"], results=str(results))


def test_every_notebook_ran_and_left_its_results(run):
    assert [path.name for path in sorted((run.folder / "notebooks").glob("*.ipynb"))] == [
        path.name for path in notebooks(run)]
    for name in ("fig1_preparation", "fig2_architecture", "fig3_cross_validation",
                 "fig4_ground_glass", "fig5_both_classes", "fig6_agreement_cv",
                 "fig_i_agreement_external", "learning_curves"):
        assert (run.folder / "figures" / f"{name}.pdf").exists(), name
    for name in ("table1_characteristics", "table2_slices", "table3_times", "table4_models",
                 "agreement", "dice_cv", "dice_external", "published"):
        assert (run.folder / "tables" / f"{name}.csv").exists(), name
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Synthetic cohort" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "report.html" in (run.folder / "SHA256SUMS").read_text()


def test_notebooks_show_pictures_and_no_errors(run):
    for path in (run.folder / "notebooks").glob("*.ipynb"):
        outputs = [o for cell in nbformat.read(path, as_version=4).cells
                   for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error"]
        assert not [o for o in outputs if o.get("name") == "stderr" and "Warning" in o.text]


def test_measurements_hold_every_case_reader_and_structure(run):
    frame = measurements.read(run.measurements_csv)
    assert len(frame) == 6 * (1 + 1 + 2) * 4 + 2 * (1 + 1 + 3 + 1) * 4
    assert set(frame.reader) == {"expert", "model", "unet2d", "unet3d", "fold-0", "fold-1",
                                 "fold-2", "ensemble"}
    assert (frame.status == "ok").all()
    cv = frame.query("role == 'cv' and reader == 'model' and structure == 'lesion'")
    split = cases.load_splits(run)
    assert dict(zip(cv.case_id, cv.fold, strict=True)) == dict(
        zip(split.case_id, split.fold, strict=True))


def test_volumes_of_the_expert_are_those_of_the_files(run):
    cohort, = cases.load_cohorts(run)
    row = measurements.read(run.measurements_csv).query(
        "case_id == 'P001' and reader == 'expert' and structure == 'ggo'").iloc[0]
    image = sitk.ReadImage(str(cohort.mask_path("P001")))
    n = int((sitk.GetArrayFromImage(image) == 1).sum())
    assert row.n_voxels == n
    assert row.volume_ml == pytest.approx(n * np.prod(image.GetSpacing()) / 1000)


def test_a_second_call_uses_the_work_again(small, run):
    before = {p: p.stat().st_mtime_ns for p in run.folder.glob("fold-*/checkpoint.pt")}
    table = (run.folder / "measurements.csv").read_bytes()
    (run.folder / "measurements.csv").unlink()
    experiment.cross_validate(run, progress=False)
    experiment.validate_external(run, progress=False)
    assert (run.folder / "measurements.csv").read_bytes() == table
    assert {p: p.stat().st_mtime_ns for p in run.folder.glob("fold-*/checkpoint.pt")} == before


@pytest.mark.nightly
def test_a_second_run_gives_the_same_figures_tables_report_and_record(small, run):
    def files():
        return {path.relative_to(run.folder): sha256_of(path) for path in run.folder.rglob("*")
                if path.is_file() and path.parent.name != "notebooks" and path.suffix != ".docx"
                and path.name != "SHA256SUMS"}
    before = files()
    reproduce(small["profile"], results=str(run.folder.parent))
    after = files()
    assert {name: after.get(name) for name in before} == before
    assert set(after) == set(before)


def test_the_record_says_by_what_the_numbers_came(run):
    info = run.info()
    assert info["threads"] == run.config.threads == 1
    assert info["hardware"]["cpu_features"]
    assert info["torch_cpu"]


def test_a_training_uses_the_threads_of_its_settings(small, run, tmp_path):
    import torch
    before = torch.get_num_threads()
    try:
        train.use_threads(3)
        assert torch.get_num_threads() == 3
        train.use_threads(None)
        assert torch.get_num_threads() == 3
        experiment.cross_validate(run, progress=False)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_notebooks_keep_no_bar_that_stands_still(run):
    for path in (run.folder / "notebooks").glob("*.ipynb"):
        assert "%|" not in path.read_text(encoding="utf-8"), path.name


@pytest.mark.nightly
def test_the_rehearsal_is_a_profile_like_any_other(tmp_path, capsys):
    assert main(["reproduce", "--profile", "rehearsal", "--results", str(tmp_path)]) == 0
    folder, = tmp_path.iterdir()
    assert (folder / "notebooks" / "E2_rehearsal.ipynb").exists()
    assert (folder / "tables" / "agreement.csv").exists()
    assert "Synthetic cohort" in (folder / "report.html").read_text(encoding="utf-8")
    assert "same statistic" not in (folder / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["digest", str(folder)]) == 0
    assert "| – | – |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [
    ["--profile", "public"], ["--profile", "public", "--data", "absent"],
    ["--profile", "paper", "--data", "."], ["--profile", "no-such-profile"],
    ["--profile", "missing.json"]])
def test_a_start_that_fails_leaves_no_folder(tmp_path, arguments, capsys, monkeypatch):
    monkeypatch.delenv("DEEPLUNG_DATA", raising=False)
    monkeypatch.delenv("DEEPLUNG_MANIFESTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments, "--results", str(tmp_path / "results")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.nightly
def test_another_folder_gives_the_same_bytes(small, run):
    """Invariant 4, in a process of its own."""
    code = ("import sys; from deeplung_nb.learning import experiment as e;"
            "from deeplung_nb.runs import open_run; r = open_run(sys.argv[1], results=sys.argv[2]);"
            "e.cross_validate(r, False); e.validate_external(r, False); print(r.folder)")
    out = subprocess.run([sys.executable, "-c", code, small["profile"], str(small["folder"] / "b")],
                         capture_output=True, text=True, check=True)
    other = Path(out.stdout.strip().splitlines()[-1])
    assert other != run.folder
    assert sha256_of(other / "measurements.csv") == sha256_of(run.folder / "measurements.csv")


def test_a_case_that_fails_stays_in_the_table_as_failed(small, run):
    cohort, = cases.load_cohorts(run)
    row = cohort.cases("external").iloc[0]
    path = cohort.mask_path(row.case_id)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:100])
        readers = {"model": evaluate.Reader("deeplung", (), 0)}
        lines = evaluate.evaluate_case(run, evaluate.Work(cohort, row, readers),
                                          evaluate.Predictors(4))
    finally:
        path.write_bytes(whole)
    frame = measurements.check(pd.DataFrame(lines).reindex(columns=list(measurements.COLUMNS)))
    assert set(frame.status) == {"failed"}
    assert frame.volume_ml.isna().all()
    assert frame.note.str.contains(row.case_id).all()


def test_a_notebook_that_stops_says_where_and_why(small, tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    path = tmp_path / "03_broken.ipynb"
    nbformat.write(book, path)
    run = open_run(small["profile"], results=tmp_path)
    with pytest.raises(NotebookError, match=r"03_broken\.ipynb stopped: ZeroDivisionError"):
        run_notebook(path, run)


def test_a_kernel_that_dies_is_no_traceback(small, tmp_path):
    book = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")])
    path = tmp_path / "04_killed.ipynb"
    nbformat.write(book, path)
    with pytest.raises(NotebookError, match=r"04_killed\.ipynb stopped: its kernel ended"):
        run_notebook(path, open_run(small["profile"], results=tmp_path))


def test_segment_writes_mask_and_table_on_the_grid_of_the_scan(small, run, tmp_path, monkeypatch,
                                                                capsys):
    cohort, = cases.load_cohorts(run)
    path = cohort.image_path("X001")
    folds = sorted(run.folder.glob("fold-*/checkpoint.pt"))
    arguments = ["segment", str(path), "--output", str(tmp_path / "out")]
    for fold in folds:
        arguments += ["--checkpoint", str(fold)]
    assert main(arguments) == 0
    mask = sitk.ReadImage(str(tmp_path / "out" / "X001_lesions.nii.gz"))
    scan = sitk.ReadImage(str(path))
    assert mask.GetSize() == scan.GetSize()
    np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-6)
    table = pd.read_csv(tmp_path / "out" / "X001_measurements.csv")
    assert table.structure.tolist() == ["lung", "ggo", "high_opacity", "lesion"]
    labels = sitk.GetArrayFromImage(mask)
    assert table.n_voxels.tolist()[1:] == [(labels == 1).sum(), (labels == 2).sum(),
                                           (labels > 0).sum()]
    assert "mL" in capsys.readouterr().out


def test_segment_without_a_network_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "packaged_checkpoints", list)
    with pytest.raises(FileNotFoundError, match="make reproduce"):
        segment.default_checkpoints(tmp_path)


def test_the_command_line_reports_errors_in_one_message(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "absent.nii.gz"), "--output", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: case 'absent'")
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_real_cohort_without_its_folder_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPLUNG_DATA", raising=False)
    with pytest.raises(ValueError, match="DATA=<folder>"):
        cases.load_cohorts(open_run("public", results=tmp_path))


def test_phantoms_are_made_once(small, run):
    cohort, = cases.load_cohorts(run)
    before = cohort.image_path("P001").stat().st_mtime_ns
    write_cohort(read_specs(small["manifests"] / "phantom.csv"), cohort.data,
                         progress=False)
    assert cohort.image_path("P001").stat().st_mtime_ns == before
