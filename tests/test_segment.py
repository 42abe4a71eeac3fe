"""`segment`: nothing is overwritten, nothing is half there, everything says where it comes from."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from deeplung_nb import __version__
from deeplung_nb.__main__ import main
from deeplung_nb.files import _machine, sha256_of
from deeplung_nb.imaging.io import read_scan, write_mask, write_scan
from deeplung_nb.imaging.lungs import LungMask, segment_lungs
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.network.checkpoint import CHECKPOINT, read_checkpoint
from deeplung_nb.reading import results
from deeplung_nb.reading import segment as room
from deeplung_nb.reading.predict import Reading
from deeplung_nb.reading.provenance import describe_network
from deeplung_nb.reading.volumes import measure

NAMES = ["ct_lesions.nii.gz", "ct_measurements.csv", "ct_provenance.json", "ct_preview.png"]


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def ct(chest_file, tmp_path):
    folder = tmp_path / "same"
    folder.mkdir()
    return shutil.copy(chest_file, folder / "ct.nii.gz")


@pytest.fixture
def call(checkpoint_file, capsys):
    """Run the command; its exit code and what it said on standard error."""
    def run(*arguments):
        code = main(["segment", *map(str, arguments), "--checkpoint", str(checkpoint_file)])
        return code, capsys.readouterr().err
    return run


def test_the_scan_in_the_output_folder_stays_as_it_was(ct, call):
    before = ct.read_bytes()
    code, message = call(ct, "--output", ct.parent)
    assert code == 0, message
    assert ct.read_bytes() == before
    assert names(ct.parent) == sorted(["ct.nii.gz", *NAMES])


def test_an_input_is_never_replaced_not_even_when_asked(ct, call):
    named_so = ct.with_name("a_lesions.nii.gz")
    ct.rename(named_so)
    before = named_so.read_bytes()
    code, message = call(named_so, "--output", named_so.parent, "--case-id", "a", "--overwrite")
    assert code == 1
    assert "one of the inputs" in message
    assert named_so.read_bytes() == before
    assert names(named_so.parent) == ["a_lesions.nii.gz"]


def test_earlier_results_are_replaced_only_when_asked(ct, call, tmp_path):
    out = tmp_path / "out"
    assert call(ct, "--output", out)[0] == 0
    (out / NAMES[1]).write_text("a colleague's notes")
    code, message = call(ct, "--output", out)
    assert code == 1
    assert "--overwrite" in message
    assert (out / NAMES[1]).read_text() == "a colleague's notes"
    assert call(ct, "--output", out, "--overwrite")[0] == 0
    assert len(pd.read_csv(out / NAMES[1])) == 4


@pytest.mark.parametrize("case_id", ["../../escaped", "/abs", "a/b", "", "..", "x\n"])
def test_an_id_that_leaves_the_folder_is_refused(ct, call, tmp_path, case_id):
    before = names(tmp_path)
    code, message = call(ct, "--output", tmp_path / "o" / "o", f"--case-id={case_id}")
    assert code == 1
    assert "case id" in message
    assert names(tmp_path) == before


def test_an_output_that_is_a_file_is_known_before_the_work(ct, call, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "read_scan",
                        lambda *a, **k: pytest.fail("the scan was read first"))
    (tmp_path / "taken").write_text("a file")
    for output in (tmp_path / "taken", tmp_path / "taken" / "below"):
        code, message = call(ct, "--output", output)
        assert code == 1
        assert "A file stands where a folder is needed" in message
        assert "Errno" not in message


def test_a_full_disk_is_known_before_inference(ct, call, tmp_path, monkeypatch):
    monkeypatch.setattr(room.Predictor, "read", lambda *a, **k: pytest.fail("inference ran"))
    monkeypatch.setattr("deeplung_nb.files.shutil.disk_usage",
                        lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    code, message = call(ct, "--output", tmp_path / "out")
    assert code == 1
    assert "The disk is full" in message


def test_a_disk_that_fills_up_leaves_no_mask_without_its_table(ct, call, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr(results, "write_text", full)
    code, message = call(ct, "--output", tmp_path / "out")
    assert code == 1
    assert "The disk is full" in message
    assert names(tmp_path / "out") == []


def test_results_say_where_they_come_from(ct, call, tmp_path, checkpoint_file):
    out = tmp_path / "out"
    assert call(ct, "--output", out)[0] == 0
    table = pd.read_csv(out / NAMES[1])
    assert table.columns[0] == "case_id"  # no number of a row before it
    record = json.loads((out / NAMES[2]).read_text())
    assert set(table.network_sha256) == {sha256_of(checkpoint_file)}
    assert record["network"]["files"][0]["sha256"] == sha256_of(checkpoint_file)
    assert set(table.scan_sha256) == {sha256_of(ct)} == {record["scan"]["sha256"]}
    assert table.trained_on.str.startswith("synthetic chests only").all()
    assert table.warnings.str.contains("synthetic chests only").all()
    assert set(table.software) == {f"deeplung_nb {__version__}"}
    assert record["lungs"] == "built-in"
    assert record["software"]["torch"] == torch.__version__
    assert record["computation"]["threads"] == torch.get_num_threads()
    note = bytes(nibabel.load(out / NAMES[0]).header["descrip"]).decode()
    assert sha256_of(checkpoint_file)[:12] in note
    assert "SYNTHETIC TRAINING" in note
    assert str(tmp_path) not in (out / NAMES[2]).read_text()


def test_each_class_has_the_densities_of_its_own_voxels(ct, checkpoint_file, monkeypatch):
    scan = read_scan(ct)
    labels = np.zeros(scan.shape, np.uint8)
    labels[(scan.hu > -700) & (scan.hu < -250)] = 1
    labels[scan.hu > -250] = 2
    monkeypatch.setattr(room.Predictor, "read", lambda *_, **__: Reading(
        LesionMask.like(scan, labels), None))
    table = room.Segmenter(checkpoint_file)(scan, progress=False).table.set_index("structure")
    for level in (200, 300):
        for name, codes in (("ggo", [1]), ("high_opacity", [2]), ("lesion", [1, 2])):
            share = 100 * (scan.hu[np.isin(labels, codes)] > -level).mean()
            assert table.loc[name, f"percent_above_minus_{level}_hu"] == pytest.approx(share)
    assert table.percent_above_minus_200_hu.nunique() == 3


def test_burden_is_of_the_lungs_that_the_network_marks_but_a_given_mask_wins(
        ct, checkpoint_file, monkeypatch):
    """A network that marks half of the lungs, and a tenth of these as lesion."""
    scan = read_scan(ct)
    found = segment_lungs(scan).mask
    half = found & (np.cumsum(found.ravel()).reshape(found.shape) <= found.sum() // 2)
    lesion = half & (np.cumsum(half.ravel()).reshape(half.shape) <= half.sum() // 10)
    marked = LungMask.like(scan, half, "network")
    monkeypatch.setattr(room.Predictor, "read", lambda *_, **__: Reading(
        LesionMask.like(scan, lesion.astype(np.uint8)), marked))
    segmenter = room.Segmenter(checkpoint_file)

    def burden(result):
        return result.table.set_index("structure").burden_percent["lesion"]

    own = segmenter(scan, progress=False)
    assert own.provenance["lungs"] == own.lungs.origin == "network"
    assert burden(own) == pytest.approx(10.0, abs=0.01)
    said, = [text for text in own.warnings if "by threshold" in text]
    assert f"{half.sum() * scan.voxel_mm3 / 1000:.0f} mL by the network" in said
    given = segmenter(scan, LungMask.like(scan, found, "reference"), progress=False)
    assert given.provenance["lungs"] == "reference"
    assert burden(given) == pytest.approx(5.0, abs=0.01)
    assert not [text for text in given.warnings if "by threshold" in text]


def test_a_checkpoint_that_does_not_say_is_unknown_not_guessed(checkpoint_file, tmp_path):
    saved = read_checkpoint(checkpoint_file)
    del saved["trained_on"]
    old = tmp_path / "quick-old" / "checkpoint.pt"
    old.parent.mkdir()
    torch.save(saved, old)
    network = describe_network([old])
    assert network["trained_on"].startswith("unknown")
    assert not network["synthetic"]


def test_an_implausible_scan_is_refused_and_forced_with_its_reasons(ct, call, tmp_path):
    scan = read_scan(ct)
    wrong = tmp_path / "wrong.nii.gz"
    write_scan(replace(scan, hu=np.ascontiguousarray(scan.hu[::-1])), wrong)
    code, message = call(wrong, "--output", tmp_path / "out")
    assert code == 1
    assert "from head to feet" in message
    assert "--force" in message
    assert not (tmp_path / "out").exists()
    code, message = call(wrong, "--output", tmp_path / "out", "--force")
    assert code == 0
    assert "warning: implausible, and forced" in message
    table = pd.read_csv(tmp_path / "out" / "wrong_measurements.csv")
    assert table.warnings.str.contains("from head to feet").all()
    note = bytes(nibabel.load(tmp_path / "out" / "wrong_lesions.nii.gz").header["descrip"])
    assert b"WARNINGS" in note


def test_an_empty_lung_mask_is_refused(ct, call, tmp_path):
    scan = read_scan(ct)
    empty = tmp_path / "lungs.nii.gz"
    write_mask(LesionMask.like(scan, np.zeros(scan.shape, np.uint8)), empty)
    code, message = call(ct, "--output", tmp_path / "out", "--lung-mask", empty)
    assert code == 1
    assert "lung mask (reference) is empty" in message


def test_the_same_scan_twice_gives_the_same_mask_and_table(ct, call, tmp_path):
    for name in ("a", "b"):
        assert call(ct, "--output", tmp_path / name)[0] == 0
    for name in NAMES[:2]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_series_is_listed_and_chosen_on_the_command_line(shared_data, call, tmp_path, capsys):
    folder = next(p for p in sorted((shared_data("dicom") / "ny_sbu").iterdir()) if p.is_dir())
    code, message = call(folder, "--output", tmp_path / "out")
    assert code == 1
    assert "--series" in message
    assert main(["segment", str(folder), "--series", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1: 1 image,")
    code, message = call(folder, "--output", tmp_path / "out", "--series", "1")
    assert code == 0, message
    assert "a single slice" in message
    code, message = call(folder, "--output", tmp_path / "other", "--series", "9")
    assert code == 1
    assert "no series '9'" in message


def test_results_do_not_go_into_the_folder_of_the_series(call, tmp_path):
    (tmp_path / "series").mkdir()
    code, message = call(tmp_path / "series", "--output", tmp_path / "series" / "out")
    assert code == 1
    assert "Choose an --output beside it" in message


def test_default_networks_are_sought_where_the_results_are(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_RESULTS", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(room, "packaged_checkpoints", list)
    with pytest.raises(FileNotFoundError, match="elsewhere: no trained network"):
        room.default_checkpoints()


def test_the_default_network_is_of_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "packaged_checkpoints", list)
    monkeypatch.setattr(room, "read_run", lambda folder: SimpleNamespace(
        config=SimpleNamespace(n_folds=1)))
    # Neither the first nor the last by name.
    for name, when in (("quick-a", 100), ("quick-b", 300), ("quick-c", 200)):
        fold = tmp_path / name / "fold-0"
        fold.mkdir(parents=True)
        for path in (fold / CHECKPOINT, fold.parent / "measurements.csv", fold.parent / "run.json"):
            path.touch()
        os.utime(fold.parent / "run.json", (when, when))
    assert room.default_checkpoints(tmp_path) == [tmp_path / "quick-b" / "fold-0" / CHECKPOINT]


def test_which_of_two_places_of_a_file_is_taken_reaches_the_reader(ct, checkpoint_file, tmp_path,
                                                                  monkeypatch):
    class Asked(Exception):
        pass

    def read(path, **options):
        raise Asked(options)

    monkeypatch.setattr(results, "read_scan", read)
    with pytest.raises(Asked) as asked:
        results.segment_file(ct, tmp_path / "out", checkpoints=[checkpoint_file], geometry="qform",
                          series="2", case_id="a")
    assert asked.value.args[0] == {"case_id": "a", "series": "2", "geometry": "qform",
                                   "force": False}


def test_a_scan_unlike_those_of_the_training_is_warned_of(ct, checkpoint_file):
    segmenter = room.Segmenter([checkpoint_file])
    segmenter.network["training_ranges"] = {"pixel_mm": (0.1, 0.2)}
    result = segmenter(read_scan(ct), progress=False)
    assert any("unlike the training scans: pixel size" in warning
               for warning in result.provenance["warnings"])
    assert result.provenance["distance_to_training"]["pixel_mm"] > 0.5
    # Where the network lies is told by three names, not by the whole way to it.
    assert segmenter.network["files"][0]["file"].count("/") == 2


def test_an_odd_scan_is_not_blamed_on_its_lung_mask(ct, monkeypatch):
    """The lungs that are found in it are odd too: what is wrong is the scan."""
    scan = read_scan(ct)
    found = segment_lungs(scan)
    given = replace(found, origin="reference")
    asked = []

    def examine(_, lungs):
        asked.append(lungs)
        return SimpleNamespace(errors=["odd"])

    monkeypatch.setattr(room, "examine", examine)
    room.require_fitting_lungs(scan, given)
    assert [lungs is given for lungs in asked] == [True, False]
    assert (asked[1].mask == found.mask).all()


def test_the_score_of_surfaces_has_the_tolerance_that_was_asked_for(chest_file):
    scan = read_scan(chest_file)
    labels = np.zeros(scan.shape, np.uint8)
    labels[20:24, 60:90, 60:90] = 1
    moved = np.roll(labels, 3, axis=2)
    shift_mm = 3 * scan.spacing_mm[2]
    scores = [measure(scan, LesionMask.like(scan, moved), None,
                      reference=LesionMask.like(scan, labels), tolerance_mm=tolerance)[-1]["nsd"]
              for tolerance in (0.5 * shift_mm, 1.5 * shift_mm)]
    assert scores[0] < scores[1] == 1.0


def test_leftovers_of_a_killed_call_are_cleaned(ct, call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".part-{_machine()}-{2**22 + 1}-abc.nii.gz").write_bytes(b"half")
    assert call(ct, "--output", out)[0] == 0
    assert names(out) == sorted(NAMES)
    assert os.stat(out / NAMES[0]).st_mode & 0o044


def test_a_mask_that_is_not_of_these_lungs_is_the_suspect_not_the_scan(ct, call, tmp_path):
    scan = read_scan(ct)
    lungs = segment_lungs(scan).mask
    for name, wrong in (("flipped", lungs[::-1]), ("lesion", np.roll(lungs, 60, axis=1))):
        path = tmp_path / f"{name}.nii.gz"
        write_mask(LesionMask.like(scan, np.ascontiguousarray(wrong).astype(np.uint8)), path)
        code, message = call(ct, "--output", tmp_path / "out", "--lung-mask", path)
        assert code == 1
        assert f"lung mask {path} does not fit the lungs" in message
    # Plausible by itself, and of these lungs: but only their inner half.
    inner = ndimage.binary_erosion(lungs, iterations=6)
    path = tmp_path / "inner.nii.gz"
    write_mask(LesionMask.like(scan, inner.astype(np.uint8)), path)
    code, message = call(ct, "--output", tmp_path / "out", "--lung-mask", path)
    assert code == 1
    assert "Dice 0." in message
    right = tmp_path / "right.nii.gz"
    write_mask(LesionMask.like(scan, lungs.astype(np.uint8)), right)
    assert call(ct, "--output", tmp_path / "out", "--lung-mask", right)[0] == 0


def test_the_series_that_was_measured_is_named(shared_data, call, tmp_path):
    folder = next(p for p in sorted((shared_data("dicom") / "ny_sbu").iterdir()) if p.is_dir())
    named = set()
    for series in ("1", "2"):
        assert call(folder, "--output", tmp_path / series, "--series", series)[0] == 0
        record, = (tmp_path / series).glob("*_provenance.json")
        named.add(json.loads(record.read_text())["scan"]["series"])
    assert len(named) == 2
    assert None not in named


def test_odd_checkpoints_are_explained(ct, capsys, checkpoint_file, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    for path, words in ((checkpoint_file.parent.parent, "a folder, expected a file: give one of"),
                        (tmp_path / "notes.txt", "not a checkpoint of this package")):
        assert main(["segment", str(ct), "--output", str(tmp_path / "o"),
                     "--checkpoint", str(path)]) == 1
        message = capsys.readouterr().err
        assert words in message
        assert "KeyError" not in message


def test_a_frozen_manifest_is_replaced_only_when_asked(shared_data, tmp_path, capsys):
    medseg2 = str(shared_data("medseg2"))
    arguments = ["manifest", "medseg2", medseg2, "--output", str(tmp_path)]
    assert main(arguments) == 0
    (tmp_path / "medseg2.csv").write_text("mine")
    assert main(arguments) == 1
    assert "the folds are frozen" in capsys.readouterr().err
    assert (tmp_path / "medseg2.csv").read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "medseg2.csv").read_text() != "mine"


def test_a_locale_of_ascii_ends_no_finished_work(ct, checkpoint_file, tmp_path):
    """Everything but the letters of the message is as elsewhere; files are UTF-8."""
    odd = ct.rename(ct.with_name("Röntgen µ.nii.gz"))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0",
                   "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "deeplung_nb", "segment", str(odd), "--output", str(tmp_path / "o"),
         "--case-id", "ct", "--checkpoint", str(checkpoint_file)],
        env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "o") == sorted(NAMES)
    record = json.loads((tmp_path / "o" / NAMES[2]).read_text(encoding="utf-8"))
    assert record["scan"]["kind"] == "a file .nii.gz"


def test_the_default_network_is_not_of_a_run_whose_record_was_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "packaged_checkpoints", list)
    (tmp_path / "quick-1").mkdir()
    (tmp_path / "quick-1" / "run.json").write_text('{"config": ')
    with pytest.raises(ValueError, match=r"run\.json: cut"):
        room.default_checkpoints(tmp_path)


def test_every_output_says_that_lung_is_missing(ct, call, tmp_path):
    """Consolidated lung is in no volume; how much of it there is at least stands everywhere."""
    from tests.test_anatomy import ill
    scan = read_scan(ct)
    changed, drawn = ill(scan, segment_lungs(scan).mask, "dorsal")
    write_scan(changed, ct)
    code, said = call(ct, "--output", tmp_path / "out")
    assert code == 0
    record = json.loads((tmp_path / "out" / NAMES[2]).read_text())
    table = pd.read_csv(tmp_path / "out" / NAMES[1])
    for text in (said, *table.warnings, " ".join(record["warnings"])):
        ml = float(text.partition("at least ")[2].split()[0])
        assert 0.25 * drawn < ml < drawn
        assert "mL of the chest cavity are neither air nor heart" in text
    assert b"WARNINGS" in nibabel.load(tmp_path / "out" / NAMES[0]).header["descrip"].tobytes()
