"""What leaves this machine: sixty identifying values are planted, none is in any output byte."""

import base64
import gzip
import json
import os
import re
import shutil
import stat

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from deeplung_nb import pseudonyms
from deeplung_nb.__main__ import main
from deeplung_nb.imaging.dicom import read_series
from deeplung_nb.imaging.io import read_scan, write_scan
from deeplung_nb.reading.names import default_case_id, public_case_id
from tests.test_dicom_objects import write_chest

TAGS = {  # standard attributes that name a person, a place or a visit
    name: f"Zq{name}Planted" for name in (
        "PatientName", "PatientID", "OtherPatientNames", "PatientBirthName",
        "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers",
        "PatientComments", "AdditionalPatientHistory",
        "Occupation", "EthnicGroup", "MilitaryRank", "PatientReligiousPreference",
        "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
        "ReferringPhysicianName", "PhysiciansOfRecord", "PerformingPhysicianName",
        "NameOfPhysiciansReadingStudy", "OperatorsName", "RequestingPhysician",
        "RequestedProcedureDescription", "StudyDescription", "SeriesDescription", "ProtocolName",
        "PerformedProcedureStepDescription", "ImageComments", "StudyComments", "DeviceSerialNumber",
        "AdmittingDiagnosesDescription", "CurrentPatientLocation", "ResponsiblePerson",
        "ContrastBolusAgent", "BodyPartExamined", "PatientState", "CountryOfResidence",
        "RegionOfResidence", "DerivationDescription", "AcquisitionComments", "ScheduledStationName",
    )}
SHORT = {"AccessionNumber": "ZqAcc77Planted", "StudyID": "ZqStudy9Planted",
         "AdmissionID": "ZqAdm5Planted", "PatientBirthDate": "19610203",
         "StationAETitle": "ZqAETPlanted"}
FILES = ("ZqFolderPlanted_Mueller^Hans", "ZqFilePlanted")


@pytest.fixture(scope="module")
def chest(chest_file):
    return read_scan(chest_file)


def every_byte(folder):
    """All that is in a folder's files: unpacked, decoded, texts of pictures too."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path.name, path.name.encode() + data
        if data[:2] == b"\x1f\x8b":
            yield path.name, gzip.decompress(data)
        for coded in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
            yield path.name, base64.b64decode(coded)
        if path.suffix == ".png":
            yield path.name, repr(Image.open(path).info).encode()


def assert_nothing_of(planted, folder):
    found = [(name, value) for name, data in every_byte(folder) for value in planted
             if value.encode("utf-8") in data or value.encode("utf-16-le") in data]
    assert found == []


def test_enough_is_planted():
    assert len(TAGS) + len(SHORT) + len(FILES) + 14 >= 60


@pytest.fixture
def series(chest, tmp_path):
    """A DICOM series full of names: standard and private tags, folder and file names."""
    folder = tmp_path / FILES[0]
    write_chest(folder, chest.hu, chest.spacing_mm, **TAGS, **SHORT)
    private = [f"ZqPrivate{k}Planted" for k in range(6)]
    for k, path in enumerate(sorted(folder.iterdir())):
        one = pydicom.dcmread(path)
        block = one.private_block(0x0029, "ACME", create=True)
        for number, value in enumerate(private):
            block.add_new(number + 1, "LO", value)
        one.save_as(path)
        path.rename(path.with_name(f"{FILES[1]}_{k:03d}.dcm"))
    (folder / "ZqLetterPlanted.pdf").write_bytes(b"%PDF-1.4 a letter")
    return folder, [*TAGS.values(), *SHORT.values(), "ZqFolderPlanted", FILES[1],
                    "ZqLetterPlanted", *private, one.SeriesInstanceUID, one.StudyInstanceUID]


def segment(source, out, checkpoint, *more):
    assert main(["segment", str(source), "--output", str(out), "--checkpoint", str(checkpoint),
                 "--report", *more]) == 0


@pytest.mark.parametrize("named", [True, False])
def test_nothing_of_a_dicom_series_reaches_an_output(series, checkpoint_file, tmp_path, named):
    folder, planted = series
    segment(folder, tmp_path / "out", checkpoint_file, *(["--case-id", "A7"] if named else []))
    assert_nothing_of(planted, tmp_path / "out")
    record = json.loads(next((tmp_path / "out").glob("*_provenance.json")).read_text())
    assert record["scan"]["kind"] == "DICOM series"
    assert record["scan"]["left_out"]["files"] == 1
    assert record["case_id"] == ("A7" if named else default_case_id(folder))


def test_nothing_of_a_cohorts_folders_reaches_an_output(series, chest, checkpoint_file, tmp_path):
    """Neither by what was measured nor by what went wrong."""
    folder, planted = series
    disk = tmp_path / "ZqDiskPlanted"
    disk.mkdir()
    shutil.move(folder, disk)
    spoilt = disk / "ZqSpoiltPlanted"
    shutil.copytree(disk / folder.name, spoilt)
    for k, path in enumerate(sorted(spoilt.glob("*.dcm"))):
        one = pydicom.dcmread(path)
        one.SeriesInstanceUID, one.StudyInstanceUID = "1.2.3.4.5", "1.2.3.4.6"
        one.save_as(path)
        if k == 3:
            path.write_bytes(path.read_bytes()[:900])
    write_scan(chest, disk / "ZqVolumePlanted.nii.gz")
    (disk / "ZqVolumePlanted_mask.nii.gz").write_bytes(b"no image")
    (disk / "ZqListPlanted.csv").write_text(
        f"image\n{disk / folder.name}\n{spoilt}\n{disk / 'ZqGonePlanted.nii.gz'}\n{disk}\n")
    planted += ["ZqDiskPlanted", "ZqSpoiltPlanted", "ZqVolumePlanted", "ZqGonePlanted",
                "ZqListPlanted"]
    for number, source in enumerate((disk, disk / "ZqListPlanted.csv")):
        out = tmp_path / f"out{number}"
        assert main(["cohort", str(source), "--output", str(out), "--workers", "0", "--checkpoint",
                     str(checkpoint_file)]) == 0
        # In the list the disk itself too: it has two series, of which none is named.
        n_failed = 1 if source.is_dir() else 3
        assert len((out / "failures.csv").read_text().splitlines()) == 1 + n_failed
        assert_nothing_of(planted, out)


def test_a_name_that_was_given_is_kept_even_where_the_folder_is_called_so(
        chest, checkpoint_file, tmp_path):
    folder = write_chest(tmp_path / "P7", chest.hu, chest.spacing_mm)
    segment(folder, tmp_path / "out", checkpoint_file, "--case-id", "P7")
    table = (tmp_path / "out" / "P7_measurements.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in table[1:]} == {"P7"}


def test_the_checker_finds_what_is_there(series, tmp_path):
    folder, planted = series
    out = tmp_path / "out"
    out.mkdir()
    with gzip.open(out / "x.gz", "wb") as stream:
        stream.write(b"a ZqPatientNamePlanted in an archive")
    with pytest.raises(AssertionError, match="ZqPatientNamePlanted"):
        assert_nothing_of(planted, out)
    shutil.rmtree(out)
    shutil.copytree(folder, out)
    with pytest.raises(AssertionError, match="ZqPatientNamePlanted"):
        assert_nothing_of(planted, out)


def test_dicom_results_name_the_patient_as_their_series_does_and_only_they(
        series, checkpoint_file, tmp_path):
    folder, planted = series
    segment(folder, tmp_path / "out", checkpoint_file, "--dicom-seg", "--dicom-sr")
    for path in list((tmp_path / "out").glob("*.dcm")):
        assert pydicom.dcmread(path).PatientID == TAGS["PatientID"]
        path.unlink()
    assert_nothing_of(planted, tmp_path / "out")


def test_nothing_of_a_nifti_header_reaches_an_output(chest, checkpoint_file, tmp_path):
    planted = [f"ZqNifti{k}Planted" for k in range(5)]
    image = nibabel.Nifti1Image(np.transpose(chest.hu, (2, 1, 0)), chest.affine)
    for name, value in zip(("descrip", "aux_file", "db_name", "intent_name"), planted,
                           strict=False):
        image.header[name] = value[:16].encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", planted[4].encode()))
    folder = tmp_path / FILES[0]
    folder.mkdir()
    nibabel.save(image, folder / "scan.nii.gz")
    segment(folder / "scan.nii.gz", tmp_path / "out", checkpoint_file)
    assert_nothing_of([*(one[:13] for one in planted), "ZqFolderPlanted"], tmp_path / "out")
    # A folder with one image is called after a patient as well.
    segment(folder, tmp_path / "out2", checkpoint_file)
    assert_nothing_of([*(one[:13] for one in planted), "ZqFolderPlanted"], tmp_path / "out2")


def test_nothing_of_an_nrrd_header_reaches_an_output(chest, checkpoint_file, tmp_path):
    image = chest.grid.to_image(chest.hu)
    for k in range(3):
        image.SetMetaData(f"zq_key{k}", f"ZqNrrd{k}Planted")
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"), useCompression=True)
    segment(tmp_path / "scan.nrrd", tmp_path / "out", checkpoint_file)
    assert_nothing_of(["ZqNrrd", "zq_key"], tmp_path / "out")


def test_in_python_too_a_folder_lends_no_name(series):
    folder, _ = series
    scan = read_series(folder)
    assert scan.case_id == folder.name  # for messages on this screen
    assert public_case_id(scan) == default_case_id(folder)
    assert public_case_id(read_series(folder, "A7")) == "A7"


def test_made_names_are_the_same_again_and_another_keys_are_others(tmp_path, monkeypatch):
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "k1"))
    first = pseudonyms.pseudonym("/data/Mueller")
    assert re.fullmatch(r"case-[0-9a-f]{12}", first)
    assert pseudonyms.pseudonym("/data/Mueller") == first
    assert pseudonyms.pseudonym("/data/Meier") != first
    assert pseudonyms.pseudonym("/data/Mueller", "series") != first.replace("case", "series")
    assert stat.S_IMODE(os.stat(tmp_path / "k1" / pseudonyms.KEY).st_mode) == 0o600
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "k2"))
    assert pseudonyms.pseudonym("/data/Mueller") != first


def test_the_list_of_made_names_stays_with_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "k"))
    for _ in range(2):
        path = pseudonyms.remember("case-1", "/data/Müller \udcff")
    assert path.read_text(encoding="utf-8").count("case-1\t/data/Müller") == 1
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_key_that_cannot_be_kept_is_told_with_its_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"can't be written .*--case-id"):
        pseudonyms.pseudonym("x")
    monkeypatch.setenv(pseudonyms.KEY_FOLDER, str(tmp_path / "k"))
    pseudonyms.read_key()
    (tmp_path / "k" / pseudonyms.KEY).write_text("cut")
    with pytest.raises(ValueError, match="no key of 64 letters"):
        pseudonyms.pseudonym("x")
