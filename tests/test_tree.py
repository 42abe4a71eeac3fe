"""A manifest of whatever lies in a folder: the good as rows, the broken listed, nobody named."""

import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import generate_uid

from deeplung_nb import pseudonyms
from deeplung_nb.__main__ import main
from deeplung_nb.cohorts.cases import read_case
from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.cohorts.splits import read_splits
from deeplung_nb.cohorts.tree import find_scans, list_tree, write_tree
from deeplung_nb.imaging.io import read_scan, write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask
from tests.test_dicom_objects import write_chest


@pytest.fixture(scope="module")
def chest(chest_file):
    return read_scan(chest_file)


@pytest.fixture
def disk(chest, tmp_path):
    """Two patients with masks, one DICOM study of three series, and what else lies on a disk."""
    disk = tmp_path / "disk"
    labels = np.zeros(chest.shape, np.uint8)
    labels[5:7, 30:40, 20:30] = 1
    mask = LesionMask.like(chest, labels)
    for who in ("Zq_Meier", "Zq_Mueller"):
        (disk / who).mkdir(parents=True)
        shift = np.int16(1 if who == "Zq_Meier" else 2)
        scan = type(chest)(chest.hu + shift, chest.grid, who)
        write_scan(scan, disk / who / "thorax_ct.nii.gz")
        write_mask(mask, disk / who / "thorax_seg.nii.gz")
    tags = {"PatientID": "ZqPat9", "StudyInstanceUID": "1.2.3.77", "KVP": "120",
            "ConvolutionKernel": "B70f", "CTDIvol": 7.5, "PatientAge": "061Y", "PatientSex": "F",
            "Manufacturer": "ACME", "ManufacturerModelName": "One", "ContrastBolusAgent": "Iodine"}
    pacs = disk / "pacs"
    pacs.mkdir()
    for name, kept in (("long", slice(None)), ("short", slice(2, -2))):
        write_chest(pacs / name, chest.hu[kept], chest.spacing_mm, **tags,
                    SeriesDescription=f"Zq{name}")
    for path in (pacs / "short").iterdir():  # a folder with two series, as PACS export them
        path.rename(pacs / "long" / f"s{path.name}")
    (pacs / "short").rmdir()
    write_chest(disk / "scout", chest.hu[:1], (5.0, 2.0, 2.0), ImageType=["ORIGINAL", "PRIMARY",
                                                                         "LOCALIZER"])
    (disk / "broken.nii.gz").write_bytes(b"no image")
    (disk / "empty.nrrd").write_bytes(b"")
    (disk / "letter.pdf").write_bytes(b"%PDF-1.4")
    cut = write_chest(disk / "cut", chest.hu, chest.spacing_mm)
    victim = sorted(cut.iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:900])
    return disk


def test_each_ct_is_a_row_and_each_other_file_has_a_reason(disk):
    tree = list_tree(disk, "site_external", progress=False)
    table = tree.table()
    assert len(table) == 3
    used = table[table.exclude == 0]
    assert len(used) == 2
    assert used["mask"].notna().all()
    assert set(used.mask_kind) == {"binary"}
    left = {name.split(" (")[0].split("/")[0]: why for name, why in tree.left_out}
    assert "expected at least a NIfTI header" in left["broken.nii.gz"]
    assert "empty.nrrd" in left
    assert "letter.pdf" in left
    assert "no CT slices" in left["scout"]
    assert "cut" in left
    assert "another series of its study has" in left["pacs"]


def test_of_a_study_the_longest_series_is_taken_and_read_again(disk, chest, tmp_path):
    table = list_tree(disk, "site_external", progress=False).table()
    row = table[table.series.notna()].squeeze()
    assert row.n_slices == chest.n_slices
    assert row.exclude_reason == "no expert's mask was found"
    assert (row.scanner, row.age, row.sex, row.protocol) == ("ACME One", 61, "female", "contrast")
    assert (row.extra_kvp, row.extra_kernel, row.extra_ctdi_mgy) == (120, "B70f", 7.5)
    again = read_scan(pseudonyms.stands_for(row.image), series=row.series)
    np.testing.assert_array_equal(again.hu, chest.hu)


def test_the_manifest_names_nobody_and_its_cases_open_here_only(disk, tmp_path, monkeypatch):
    _, files, listed = write_tree(disk, tmp_path / "out", progress=False)
    text = files[0].read_text()
    for name in ("Zq", "Meier", "Mueller", "pacs", "1.2.3.77", "thorax"):
        assert name not in text
    assert "Zq_Meier" not in "".join(path.name for path in (tmp_path / "out").iterdir())
    assert listed.parent == pseudonyms.key_folder()
    cohort = read_manifest(files[0], disk)
    case = read_case(cohort, cohort.included.case_id.iloc[0])
    assert case.expert.labels.sum() == 200
    assert case.structures == ("lesion",)
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "nobody"))
    with pytest.raises(ValueError, match="is missing, expected a file"):
        read_manifest(files[0], disk)


def test_a_scan_that_changed_since_is_found_by_its_hash(disk, chest, tmp_path):
    _, files, _ = write_tree(disk, tmp_path / "out", progress=False)
    changed = type(chest)(chest.hu + np.int16(5), chest.grid, "x")
    write_scan(changed, disk / "Zq_Meier" / "thorax_ct.nii.gz")
    with pytest.raises(ValueError, match="another version or damaged"):
        read_manifest(files[0], disk)


def test_masks_may_lie_in_a_folder_beside(disk, chest, tmp_path):
    other = tmp_path / "other"
    for folder, name in (("images", "thorax_ct.nii.gz"), ("labels", "thorax_seg.nii.gz")):
        (other / folder).mkdir(parents=True)
        shutil.copy(disk / "Zq_Meier" / name, other / folder / "p1.nii.gz")
    table = list_tree(other, "x", progress=False).table()
    assert table["mask"].notna().all()
    assert len(table) == 1


def test_a_head_is_a_row_that_is_not_used(chest, tmp_path):
    (tmp_path / "t" / "ZqO'Brien").mkdir(parents=True)  # an apostrophe is quoted otherwise
    head = np.full(chest.shape, -1000, np.int16)
    head[:, 20:-20, 20:-20] = 40
    write_scan(type(chest)(head, chest.grid, "h"), tmp_path / "t" / "ZqO'Brien" / "head.nii.gz")
    table = list_tree(tmp_path / "t", "x", progress=False).table()
    assert table.exclude.tolist() == [1]
    assert "no plausible chest CT" in table.exclude_reason[0]
    assert "Zq" not in table.to_csv()


def test_cases_that_train_are_dealt_by_patient(disk, chest, tmp_path):
    for k in range(3):
        shutil.copytree(disk / "Zq_Meier", disk / f"p{k}")
        write_scan(type(chest)(chest.hu + np.int16(10 + k), chest.grid, "x"),
                   disk / f"p{k}" / "thorax_ct.nii.gz")
    _, files, _ = write_tree(disk, tmp_path / "out", "cv", progress=False, n_folds=3)
    assert [path.name for path in files] == ["site_training.csv", "splits_site_training.csv"]
    assert read_splits(files[1]).case_id.nunique() == 5
    with pytest.raises(FileExistsError, match="the folds are frozen"):
        write_tree(disk, tmp_path / "out", "cv", progress=False)


def test_the_command_says_how_many_and_why_not(disk, tmp_path, capsys):
    assert main(["manifest", str(disk), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 cases of 3 patients, 1 more that are not used:" in said
    assert "1: no expert's mask was found" in said
    assert len(pd.read_csv(tmp_path / "out" / "site_external.csv")) == 3


@pytest.mark.parametrize(("make", "said"), [
    (lambda p: p / "absent", "is no folder"),
    (lambda p: (p / "e").mkdir() or p / "e", "holds nothing that could be a CT")])
def test_what_holds_no_ct_is_told(tmp_path, make, said, capsys):
    assert main(["manifest", str(make(tmp_path)), "--output", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert main(["manifest", "medseg2"]) == 1
    assert "the folder of medseg2 is missing" in capsys.readouterr().err


def test_a_series_whose_files_lie_in_two_folders_is_one_and_is_found_again(chest, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    write_chest(disk / "a", chest.hu, chest.spacing_mm, PatientID="A", StudyInstanceUID="1.2.3.1")
    write_chest(disk / "b", chest.hu[:, ::-1], chest.spacing_mm, PatientID="B",
                StudyInstanceUID="1.2.3.2")
    (disk / "c").mkdir()
    for k, path in enumerate(sorted((disk / "b").iterdir())):
        path.rename((disk / "c" / path.name) if k % 2 else path)
    found, _ = find_scans(disk)
    assert [one.image for one in found] == [disk, disk / "a"]
    again = read_scan(found[0].image, case_id="x", series=found[0].series)
    assert np.array_equal(again.hu, chest.hu[:, ::-1])
    assert len(list_tree(disk, "x", progress=False).rows) == 2


@pytest.mark.parametrize("flat", [False, True])
def test_many_files_are_looked_at_once(chest, tmp_path, monkeypatch, flat):
    """Every header is read once and every slice once, whether or not each patient has a folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    for k in range(12):
        own = write_chest(disk / f"p{k}", chest.hu[:9, ::8, ::8] + np.int16(k), (5.0, 16.0, 16.0),
                          PatientID=f"P{k}")
        if flat:
            for path in own.iterdir():
                path.rename(disk / f"p{k}_{path.name}")
            own.rmdir()
    opened = []
    real = pydicom.dcmread

    def counted(*args, **kwargs):
        opened.append(kwargs.get("stop_before_pixels"))
        return real(*args, **kwargs)

    monkeypatch.setattr(pydicom, "dcmread", counted)
    tree = list_tree(disk, "x", progress=False)
    assert len(tree.rows) == 12
    assert opened.count(True) <= 12 * 9 + 12  # and of each series the first, for its facts
    assert len(opened) <= 2 * 12 * 9 + 12
    assert len({row["series"] for row in tree.rows}) == (12 if flat else 1)


@pytest.mark.nightly
@pytest.mark.parametrize("flat", [False, True])
def test_of_ten_thousand_files_the_good_are_rows_and_the_thirty_broken_have_reasons(
        chest, tmp_path, flat):
    disk = tmp_path / "disk"
    disk.mkdir()
    n_patients, hu = 215, np.ascontiguousarray(chest.hu[:, ::2, ::2])
    own = write_chest(tmp_path / "one", hu, (chest.spacing_mm[0], *(2 * mm for mm in
                                                                   chest.spacing_mm[1:])))
    slices = [pydicom.dcmread(path) for path in sorted(own.iterdir())]
    for k in range(n_patients):
        study, series = generate_uid(), generate_uid()
        (disk / f"p{k}").mkdir()
        for at, one in enumerate(slices):
            one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID = f"P{k}", study, series
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            one.save_as(disk / f"p{k}" / (f"a{k}x{at}.dcm" if flat else f"{at}.dcm"))
    if flat:
        for path in list(disk.glob("p*/*")):
            path.rename(disk / path.name)
    broken = [disk / "broken" / f"thing{k}.{'nii.gz' if k % 2 else 'pdf'}" for k in range(30)]
    broken[0].parent.mkdir()
    for path in broken:
        path.write_bytes(b"no image at all")
    assert sum(path.is_file() for path in disk.rglob("*")) >= 9_900
    tree = list_tree(disk, "x", progress=False)
    assert len(tree.rows) == n_patients
    assert len({row["patient_id"] for row in tree.rows}) == n_patients
    assert all(row["exclude_reason"] == "no expert's mask was found" for row in tree.rows)
    assert sorted(name for name, _ in tree.left_out) == sorted(
        path.relative_to(disk).as_posix() for path in broken)
    assert all(why for _, why in tree.left_out)
