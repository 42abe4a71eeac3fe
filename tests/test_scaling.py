"""A cohort by many processes: every scan once, the same bytes whatever dies in between."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import SimpleITK as sitk

from deeplung_nb import measurements
from deeplung_nb.__main__ import main
from deeplung_nb.files import only_one, sha256_of
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan, write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.scaling import engine, one
from deeplung_nb.scaling.engine import CohortError, make_plan, measure_cohort, without_secrets
from deeplung_nb.scaling.scans import list_scans
from deeplung_nb.scaling.tally import Tally
from deeplung_nb.widgets import CohortMonitor, view_measured
from tests.scaling_faults import measure_with_faults

N = 6
TABLES = ("measurements.csv", "measurements.parquet", "failures.csv")


@pytest.fixture(scope="module")
def chest(chest_file):
    """A chest on a coarse grid: read in a moment, and still a plausible one."""
    scan = read_scan(chest_file)
    hu = np.ascontiguousarray(scan.hu[::2, ::2, ::2])
    return Scan(hu, Grid.upright(hu.shape, tuple(2 * mm for mm in scan.spacing_mm)), "chest")


def write_cohort(chest, folder, n=N):
    """`n` scans with masks, and a list of them."""
    folder.mkdir(parents=True)
    labels = np.zeros(chest.shape, np.uint8)
    labels[5:9, 30:40, 20:30], labels[10:12, 30:40, 20:30] = 1, 2
    for k in range(n):
        write_scan(Scan(chest.hu + np.int16(k), chest.grid, f"s{k}"), folder / f"s{k}.nii.gz")
        write_mask(LesionMask.like(chest, np.roll(labels, k, axis=1)), folder / f"m{k}.nii.gz")
    pd.DataFrame({"case_id": [f"s{k:02d}" for k in range(n)],
                  "image": [f"s{k}.nii.gz" for k in range(n)],
                  "mask": [f"m{k}.nii.gz" for k in range(n)]}).to_csv(folder / "list.csv",
                                                                     index=False)
    return folder / "list.csv"


@pytest.fixture(scope="module")
def cohort(chest, tmp_path_factory):
    return write_cohort(chest, tmp_path_factory.mktemp("cohort") / "scans")


@pytest.fixture(scope="module")
def serial(cohort, checkpoint_file, tmp_path_factory):
    """The folder of a run by one process, one scan after the other."""
    folder = tmp_path_factory.mktemp("serial")
    jobs, _ = list_scans(cohort)
    report = measure_cohort(jobs, make_plan(folder, [checkpoint_file]), workers=0, progress=False)
    assert report.counts == {"done": N}
    return folder


@pytest.fixture
def copy(serial, tmp_path):
    """A finished run that a test may spoil."""
    shutil.copytree(serial, tmp_path / "run")
    return tmp_path / "run"


def go_on(cohort, folder, checkpoint_file, **options):
    jobs, _ = list_scans(cohort)
    options.setdefault("workers", 0)
    plan = {name: options.pop(name) for name in ("limit_seconds", "verify") if name in options}
    return measure_cohort(jobs, make_plan(folder, [checkpoint_file], **plan), progress=False,
                          **options)


def require_same(folder, serial):
    for name in TABLES:
        assert sha256_of(folder / name) == sha256_of(serial / name), name
    for mask in serial.glob("scans/*/*_lesions.nii.gz"):
        other = folder / mask.relative_to(serial)
        both = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (mask, other)]
        assert np.array_equal(*both)


def no_process_of(folder):
    """Nobody works there any more: workers have the folder's scratch, or die with their client."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        mine = [p for p in psutil.process_iter(["cmdline"])
                if str(folder) in " ".join(p.info["cmdline"] or [])]
        if not mine:
            return True
        time.sleep(0.2)
    return False


def test_the_rows_are_those_of_the_scans_and_their_experts(serial, cohort):
    table = measurements.read(serial / "measurements.csv")
    assert sorted(set(table.case_id)) == [f"s{k:02d}" for k in range(N)]
    assert set(table.reader) == {"expert", "model"}
    row = table.query("case_id == 's01' and reader == 'expert' and structure == 'ggo'").iloc[0]
    assert row.n_voxels == 4 * 10 * 10
    own = pd.read_csv(serial / "scans" / "s01" / "s01_measurements.csv").set_index("structure")
    rows = table.query("case_id == 's01' and reader == 'model'").set_index("structure")
    for name in ("volume_ml", "mean_hu", "burden_percent", "po_percent"):
        pd.testing.assert_series_equal(rows[name].sort_index(), own[name].sort_index(),
                                       check_names=False)
    assert rows.dice.notna().any()
    assert len(pd.read_csv(serial / "failures.csv")) == 0
    parquet = pd.read_parquet(serial / "measurements.parquet")
    pd.testing.assert_frame_equal(parquet, table, check_dtype=False)


@pytest.mark.nightly
def test_two_workers_leave_the_bytes_of_one_process(cohort, serial, checkpoint_file, tmp_path):
    report = go_on(cohort, tmp_path / "run", checkpoint_file, workers=2)
    assert report.counts == {"done": N}
    require_same(tmp_path / "run", serial)
    told = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert (told["state"], told["counts"]) == ("finished", {"done": N})


def test_what_is_done_is_never_done_twice(cohort, copy, serial, checkpoint_file):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*_lesions.nii.gz")}
    assert go_on(cohort, copy, checkpoint_file).counts == {"kept": N}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    require_same(copy, serial)


def test_a_touched_scan_is_compared_and_kept_a_changed_one_is_measured_again(
        chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 2)
    go_on(cohort, tmp_path / "run", checkpoint_file)
    os.utime(tmp_path / "scans" / "s0.nii.gz", (1, 1))  # a clock that was set back
    write_scan(Scan(chest.hu + np.int16(40), chest.grid, "x"), tmp_path / "scans" / "s1.nii.gz")
    assert go_on(cohort, tmp_path / "run", checkpoint_file).counts == {"done": 1, "kept": 1}


def test_the_same_size_and_time_hide_a_change_only_without_verify(chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 1)
    path = tmp_path / "scans" / "m0.nii.gz"
    go_on(cohort, tmp_path / "run", checkpoint_file)
    at, content = path.stat().st_mtime_ns, bytearray(path.read_bytes())
    content[4] ^= 1  # the time in gzip's header: another file of the same image
    path.write_bytes(content)
    os.utime(path, ns=(at, at))
    assert go_on(cohort, tmp_path / "run", checkpoint_file).counts == {"kept": 1}
    assert go_on(cohort, tmp_path / "run", checkpoint_file, verify=True).counts == {"done": 1}


def test_another_network_or_program_measures_all_anew(cohort, copy, checkpoint_file, monkeypatch):
    monkeypatch.setattr(one, "code_digest", lambda: "another program")
    assert go_on(cohort, copy, checkpoint_file).counts == {"done": N}


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "s02_lesions.nii.gz").write_bytes(b"half"),
    lambda folder: (folder / "s02_measurements.csv").unlink(),
    lambda folder: (folder / "record.json").write_text('{"status": "ok", "rows"'),
    lambda folder: (folder / "record.json").write_text("[]"),
    lambda folder: shutil.rmtree(folder),
])
def test_a_spoilt_result_is_found_and_made_again(cohort, copy, serial, checkpoint_file, spoil):
    spoil(copy / "scans" / "s02")
    assert go_on(cohort, copy, checkpoint_file).counts == {"done": 1, "kept": N - 1}
    require_same(copy, serial)


def test_a_scan_that_cannot_be_measured_is_a_failure_and_the_others_go_on(
        chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 4)
    (tmp_path / "scans" / "s1.nii.gz").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(-1000, 1000, chest.shape).astype(np.int16)
    write_scan(Scan(noise, chest.grid, "x"), tmp_path / "scans" / "s2.nii.gz")
    hidden = (tmp_path / "scans" / "s3.nii.gz").rename(tmp_path / "hidden.nii.gz")
    run = tmp_path / "run"
    assert go_on(cohort, run, checkpoint_file).counts == {"done": 1, "missing": 1, "refused": 2}
    failures = pd.read_csv(run / "failures.csv").set_index("case_id")
    assert failures.kind.to_dict() == {"s01": "refused", "s02": "refused", "s03": "missing"}
    assert failures.reason.str.len().min() > 20
    table = measurements.read(run / "measurements.csv")
    assert (table.query("case_id == 's02'").status == "failed").all()
    assert table.query("case_id == 's02'").volume_ml.isna().all()
    # What lies in the scan is not tried again, what may have passed is.
    shutil.copy(hidden, tmp_path / "scans" / "s3.nii.gz")
    assert go_on(cohort, run, checkpoint_file).counts == {"done": 1, "kept": 1, "refused": 2}


@pytest.fixture
def faulty(tmp_path):
    """A folder in which faults happen as they are written down."""
    def make(**faults):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "faults.json").write_text(json.dumps(faults))
        return tmp_path / "run"

    return make


def test_a_worker_that_dies_is_replaced_and_its_scan_tried_elsewhere(
        cohort, serial, checkpoint_file, faulty):
    run = faulty(s00=("kill", 2), s04=("kill", 1))
    report = go_on(cohort, run, checkpoint_file, workers=2, measure=measure_with_faults)
    assert report.counts == {"done": N}, (run / "failures.csv").read_text()
    assert len(list(run.glob("s00.*.fault"))) == 2
    require_same(run, serial)


@pytest.mark.nightly
def test_scans_that_hang_or_kill_every_worker_are_failures_and_are_tried_again_next_time(
        cohort, serial, checkpoint_file, faulty):
    run = faulty(s01=("kill", 99), s03=("hang", 99), s05=("bug", 99))
    report = go_on(cohort, run, checkpoint_file, workers=2, limit_seconds=20,
                   measure=measure_with_faults)
    assert report.counts == {"done": N - 3, "died": 1, "error": 1, "hung": 1}
    reasons = pd.read_csv(run / "failures.csv").set_index("case_id").reason
    assert "ended 3 workers" in reasons["s01"]
    assert "longer than 20 s" in reasons["s03"]
    assert "sleep" in (run / "scans" / "s03" / "hung.txt").read_text() or \
        "happen" in (run / "scans" / "s03" / "hung.txt").read_text()
    assert "unheard of" in reasons["s05"]
    assert len(list(run.glob("s01.*.fault"))) == 3
    assert go_on(cohort, run, checkpoint_file).counts == {"done": 3, "kept": N - 3}
    require_same(run, serial)


@pytest.mark.nightly
def test_a_scan_that_needs_more_memory_than_a_worker_has_is_a_failure(
        cohort, checkpoint_file, faulty):
    run = faulty(s02=("memory", 99))
    report = go_on(cohort, run, checkpoint_file, workers=1, memory_gb=1.5,
                   measure=measure_with_faults)
    assert report.counts == {"died": 1, "done": N - 1}
    assert "--memory" in pd.read_csv(run / "failures.csv").reason[0]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_full_disk_stops_the_cohort_and_loses_nothing(cohort, serial, checkpoint_file, faulty,
                                                        workers):
    run = faulty(s03=("full", 1))
    with pytest.raises(CohortError, match=r"(?s)somewhere.*free some space.*goes on"):
        go_on(cohort, run, checkpoint_file, workers=workers, measure=measure_with_faults)
    assert json.loads((run / "progress.json").read_text())["state"] == "stopped"
    report = go_on(cohort, run, checkpoint_file)
    assert report.counts["done"] + report.counts["kept"] == N
    require_same(run, serial)


def test_a_measured_scan_opens_in_the_viewer_with_both_marks(cohort, serial):
    viewer = view_measured(cohort, serial, "s01")
    assert list(viewer.masks) == ["expert", "automatic"]
    assert viewer.scan.case_id == "s01"
    rows = measurements.read(serial / "measurements.csv").query(
        "case_id == 's01' and structure == 'lesion'").set_index("reader").n_voxels
    assert [int((mask > 0).sum()) for mask in viewer.masks.values()] == [
        rows["expert"], rows["model"]]
    with pytest.raises(ValueError, match="case 's99': expected one of s00, s01"):
        view_measured(cohort, serial, "s99")
    with pytest.raises(FileNotFoundError, match=r"s01_lesions.*is not measured. See failures.csv"):
        view_measured(cohort, serial / "elsewhere", "s01")


def test_two_calls_do_not_work_in_one_folder(cohort, copy, checkpoint_file):
    with only_one(copy, "measures a cohort"), \
            pytest.raises(CohortError, match=f"process {os.getpid()} on"):
        go_on(cohort, copy, checkpoint_file)
    assert go_on(cohort, copy, checkpoint_file).counts == {"kept": N}


def test_no_scheduler_is_told_without_its_secrets(cohort, tmp_path, checkpoint_file, monkeypatch):
    assert without_secrets("tls://me:word@host:1/a?key=9") == "tls://host:1/a"
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 1)
    with pytest.raises(CohortError, match="no Dask scheduler answers") as told:
        go_on(cohort, tmp_path / "run", checkpoint_file, scheduler="tcp://u:pw@127.0.0.1:9")
    assert "pw" not in str(told.value)


@pytest.mark.nightly
def test_a_cluster_that_is_there_is_used_and_stays(cohort, serial, checkpoint_file, tmp_path):
    from distributed import LocalCluster
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None,
                      host="127.0.0.1", silence_logs=50) as cluster:
        report = go_on(cohort, tmp_path / "run", checkpoint_file,
                       scheduler=cluster.scheduler_address)
        assert report.counts == {"done": N}
        assert cluster.status.name == "running"
    require_same(tmp_path / "run", serial)


def test_the_monitor_tells_what_the_file_says_and_waits_for_it(serial, tmp_path):
    monitor = CohortMonitor(tmp_path / "absent", every_seconds=0)
    assert monitor.refresh() == "waiting"
    (tmp_path / "absent").mkdir()
    tally = Tally(str(tmp_path / "absent"), 12_000, "2 workers", shown=False)
    tally.began -= 600
    for kind, n in (("kept", 7000), ("done", 900), ("refused", 90), ("died", 10)):
        tally.counts[kind] = n
    tally.write("measuring")
    assert monitor.refresh() == "measuring"
    assert "8,000 of 12,000 scans" in monitor._words.value
    assert "about 40 min left" in monitor._words.value  # 4,000 at 600 s for a thousand
    assert "100 failed" in monitor._words.value
    assert monitor._bar.value == 8000
    assert "refused" in monitor._counts.value
    finished = CohortMonitor(serial, every_seconds=0)
    assert finished.told["state"] == "finished"
    assert f"{N} of {N} scans" in finished._words.value


def test_a_worker_of_another_version_says_so(cohort, tmp_path, checkpoint_file):
    jobs, _ = list_scans(cohort)
    plan = make_plan(tmp_path / "run", [checkpoint_file])
    for other, told in ((replace(plan, code="older"), "another version"),
                        (replace(plan, network_sha256="f" * 64), "are not the networks"),
                        (replace(plan, checkpoints=("absent.pt",)), "absent.pt")):
        with pytest.raises(CohortError, match=f"(?s)can't measure this cohort.*{told}"):
            measure_cohort(jobs, other, workers=0, progress=False)
    # It was no fault of the scans.
    assert measure_cohort(jobs, plan, workers=0, progress=False).counts == {"done": N}


def test_a_scan_that_cannot_be_read_or_changes_meanwhile_is_tried_again(
        chest, checkpoint_file, faulty, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 3)
    run = faulty(s00=("unreadable", 1), s01=("touch", 1))
    report = go_on(cohort, run, checkpoint_file, measure=measure_with_faults)
    assert report.counts == {"done": 1, "error": 1, "unreadable": 1}
    failures = pd.read_csv(run / "failures.csv").set_index("case_id").reason
    assert "changed while" in failures["s01"]
    assert not list((run / "scans" / "s01").glob("*.nii.gz"))
    assert go_on(cohort, run, checkpoint_file).counts == {"done": 2, "kept": 1}


def test_voxels_beside_a_header_are_part_of_the_scan(chest, checkpoint_file, tmp_path):
    image = chest.grid.to_image(chest.hu)
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    (tmp_path / "list.csv").write_text("image\na.mhd\n")
    run = tmp_path / "run"
    assert go_on(tmp_path / "list.csv", run, checkpoint_file).counts == {"done": 1}
    sitk.WriteImage(chest.grid.to_image(chest.hu + np.int16(9)), str(tmp_path / "a.mhd"))
    assert go_on(tmp_path / "list.csv", run, checkpoint_file).counts == {"done": 1}
    hidden = (tmp_path / "a.raw").rename(tmp_path / "b.raw")
    assert set(go_on(tmp_path / "list.csv", run, checkpoint_file).counts) <= {"refused", "error"}
    hidden.rename(tmp_path / "a.raw")
    assert go_on(tmp_path / "list.csv", run, checkpoint_file).counts == {"done": 1}


def test_a_mask_of_ones_alone_tells_no_classes_apart(chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 1)
    labels = np.zeros(chest.shape, np.uint8)
    labels[5:9, 30:40, 20:30] = 1
    write_mask(LesionMask.like(chest, labels), tmp_path / "scans" / "m0.nii.gz")
    go_on(cohort, tmp_path / "run", checkpoint_file)
    table = measurements.read(tmp_path / "run" / "measurements.csv").query("reader == 'expert'")
    assert set(table.structure) == {"lung", "lesion"}


def test_a_mask_that_cannot_be_used_is_a_failed_row_of_the_expert(chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 1)
    labels = np.full(chest.shape, 7, np.uint8)
    image = chest.grid.to_image(labels)
    sitk.WriteImage(image, str(tmp_path / "scans" / "m0.nii.gz"))
    assert go_on(cohort, tmp_path / "run", checkpoint_file).counts == {"done": 1}
    table = measurements.read(tmp_path / "run" / "measurements.csv")
    assert (table.query("reader == 'expert'").status == "failed").all()
    assert table.query("reader == 'expert'").note.str.contains("label codes 7").all()
    assert table.query("reader == 'model'").volume_ml.notna().all()


def test_rows_of_another_network_are_in_no_table(cohort, copy, checkpoint_file):
    def nothing(plan, job):
        return one.Outcome(job.case_id, "error", "nothing was done")

    jobs, _ = list_scans(cohort)
    plan = replace(make_plan(copy, [checkpoint_file]), network_sha256="f" * 64)
    measure_cohort(jobs, plan, workers=0, progress=False, measure=nothing)
    table = measurements.read(copy / "measurements.csv")
    assert set(table.status) == {"failed"}
    assert len(pd.read_csv(copy / "failures.csv")) == N


def test_lists_manifests_and_folders_are_taken_and_their_faults_told(cohort, tmp_path):
    jobs, left_out = list_scans(cohort.parent)
    assert (len(jobs), left_out) == (2 * N, [("list.csv", left_out[0][1])])
    assert all(job.case_id.startswith("case-") for job in jobs)
    for text, told in (("name,age\na,1\n", "no column of CTs"),
                       ("case_id,image\na,x\nA,y\n", "differ in case only"),
                       ("case_id,image\n../a,x\n", "case id '../a'"),
                       ("Path\n", "there is no row|names no CT")):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=told):
            list_scans(tmp_path / "bad.csv")
    (tmp_path / "good.csv").write_text("Path,age\nx.nii.gz,3\n,4\n  ,5\n")
    (job,), left_out = list_scans(tmp_path / "good.csv")
    assert (job.case_id[:5], job.image) == ("scan-", str(tmp_path / "x.nii.gz"))
    assert [why for _, why in left_out] == ["no path", "no path"]
    # A line more above it is no other name.
    (tmp_path / "good.csv").write_text("Path,age\ny.nii.gz,5\nx.nii.gz,3\n")
    assert job.case_id in [one.case_id for one in list_scans(tmp_path / "good.csv")[0]]
    with pytest.raises(ValueError, match="is missing"):
        list_scans(tmp_path / "absent.csv")


def test_the_command_measures_and_goes_on_to_agreement(cohort, tmp_path, checkpoint_file, capsys):
    arguments = ["cohort", str(cohort), "--output", str(tmp_path / "run"), "--workers", "0",
                 "--checkpoint", str(checkpoint_file)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{N} measured, 0 kept from before, 0 failed" in said
    assert "Any lesion" in (tmp_path / "run" / "agreement.md").read_text()
    assert main(arguments) == 0
    assert f"0 measured, {N} kept" in capsys.readouterr().out


def words_of(process):
    """A process's command; nothing of one that has ended meanwhile, or waits to be counted."""
    try:
        return " ".join(process.cmdline() or [])
    except psutil.NoSuchProcess:  # a zombie is one
        return ""


def kill_some(process, rng, workers_too=True):
    """SIGKILL of the client (and so of the scheduler in it), or of one of its workers."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    workers = [p for p in family if "spawn_main" in words_of(p)]
    victim = rng.choice(workers) if workers and workers_too and rng.random() < 0.8 else process
    os.kill(victim.pid, signal.SIGKILL)


def run_and_kill(cohort, folder, checkpoint_file, n_kills, seed):
    """The command, again and again, while something of it is killed at random times."""
    command = [sys.executable, "-m", "deeplung_nb", "cohort", str(cohort), "--output", str(folder),
               "--workers", "2", "--checkpoint", str(checkpoint_file)]
    rng, killed = random.Random(seed), 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   cwd=Path(__file__).parent.parent)
        while process.poll() is None:
            # Not before the workers are up, and then at any moment of a scan.
            time.sleep(rng.uniform(1.0, 6.0))
            if killed < n_kills and process.poll() is None \
                    and (folder / "progress.json").exists():
                kill_some(process, rng)
                killed += 1
        assert no_process_of(folder)
        if process.returncode == 0 and killed >= n_kills:
            return


@pytest.mark.nightly
def test_kills_at_random_leave_the_bytes_of_one_process(cohort, serial, checkpoint_file, tmp_path):
    run_and_kill(cohort, tmp_path / "run", checkpoint_file, n_kills=3, seed=1)
    require_same(tmp_path / "run", serial)


@pytest.mark.nightly
def test_sixty_scans_and_twenty_kills(chest, checkpoint_file, tmp_path):
    cohort = write_cohort(chest, tmp_path / "scans", 60)
    go_on(cohort, tmp_path / "serial", checkpoint_file)
    run_and_kill(cohort, tmp_path / "run", checkpoint_file, n_kills=20, seed=2)
    require_same(tmp_path / "run", tmp_path / "serial")
