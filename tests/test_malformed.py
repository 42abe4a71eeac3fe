"""Three hundred malformed inputs, made by rule: each is refused in words, or read right.

An outcome is `refused` (a ValueError or OSError whose message is not empty, and exit code 1 on the
command line), `right` (what was read is what was there) or, for changed bytes that no checksum
covers, `unknowable` (it was read, with the right shape). Nothing else passes: no other exception,
no wrong result, no half file. `pytest tests/test_malformed.py -s` prints the tally.
"""

import collections
import contextlib
import io
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import ndimage

from deeplung_nb import measurements
from deeplung_nb.__main__ import main
from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.cohorts.splits import read_splits
from deeplung_nb.imaging.io import read_lung_mask, read_mask, read_scan
from deeplung_nb.imaging.lungs import LungMask, lungs_for, segment_lungs
from deeplung_nb.imaging.plausibility import require_plausible
from deeplung_nb.network.checkpoint import load_network, read_checkpoint, save_tensors
from deeplung_nb.reading.segment import require_fitting_lungs
from deeplung_nb.runs import read_run
from deeplung_nb.runs.resources import PACKAGE_FOLDER
from tests.test_dicom import make_series

pytestmark = pytest.mark.malformed
MANIFESTS = PACKAGE_FOLDER.parent / "data_manifests"
EXAMPLE = PACKAGE_FOLDER.parent / "results" / "example"
TALLY: collections.Counter = collections.Counter()
HOSTILE = ("../../escaped", "/tmp/escaped", "a/b", "", ".", "..", "a\nb", "-x", "x" * 300, "é",
           "a b", "C:\\x", "con:", "$(touch escaped)", "a;b", "%00", "a|b", "~", "*", "nul\0")


def outcome(call, is_right=None, unknowable=False):
    """What became of one input; an assertion fails where it is nothing that may be."""
    message = None
    try:
        result = call()
    except (ValueError, OSError) as error:
        message = str(error)
    if message is not None:
        assert len(message) > 20, message
        assert "Traceback" not in message
        return "refused"
    if unknowable:
        return "unknowable"
    assert is_right is not None, "taken without a word"
    assert is_right(result), "read, and wrong"
    return "right"


def check(group, inputs):
    """Run all inputs of a group; names of those that failed, with the reason."""
    failed = []
    for name, call, *rest in inputs:
        try:
            TALLY[group, outcome(call, *rest)] += 1
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    assert not failed, "\n".join(failed)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


FORMATS = {"nii.gz": (".nii.gz", True), "nii": (".nii", False), "nrrd gz": (".nrrd", True),
           "nrrd": (".nrrd", False), "mha z": (".mha", True), "mha": (".mha", False)}


@pytest.fixture(scope="module")
def files(chest_file, tmp_path_factory):
    """The same chest in every format, as bytes, and the scan."""
    image, folder, content = sitk.ReadImage(str(chest_file)), tmp_path_factory.mktemp("all"), {}
    for name, (suffix, packed) in FORMATS.items():
        path = folder / f"whole{suffix}"
        sitk.WriteImage(image, str(path), packed)
        content[name] = path.read_bytes()
    return content, read_scan(chest_file)


def read_whole(path):
    scan = read_scan(path)
    require_plausible(scan, lungs_for(scan))
    return scan


@pytest.mark.nightly
def test_images_cut_or_changed_at_random_bytes(files, tmp_path):
    content, truth = files
    rng = np.random.default_rng(20)

    def same(scan):
        return (np.array_equal(scan.hu, truth.hu)
                and np.allclose(scan.spacing_mm, truth.spacing_mm, rtol=1e-4))

    inputs = []
    for name, whole in content.items():
        suffix, packed = FORMATS[name]
        for at in rng.integers(0, len(whole) - 1, 10):
            path = tmp_path / f"{len(inputs)}{suffix}"
            path.write_bytes(whole[:at])
            inputs.append((f"{name} cut at {at}", lambda path=path: read_whole(path), same))
        # Only packed voxels carry a checksum; a NIfTI file is packed with its header.
        first = 20 if name == "nii.gz" else len(whole) // 2
        for at in rng.integers(first, len(whole), 10):
            path = tmp_path / f"{len(inputs)}{suffix}"
            changed = bytearray(whole)
            changed[at] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            inputs.append((f"{name} changed at {at}", lambda path=path: read_whole(path), same,
                           not packed))
        for at in rng.integers(0, 340, 5):
            path = tmp_path / f"{len(inputs)}{suffix}"
            changed = bytearray(whole)
            changed[at] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            inputs.append((f"{name} header changed at {at}", lambda path=path: read_whole(path),
                           same, name != "nii.gz"))
    check("images, bytes", inputs)


def test_images_of_the_wrong_kind(files, tmp_path):
    _, truth = files
    hu = truth.hu
    with_nan = hu.astype(np.float32)
    with_nan[3, 4, 5] = np.nan
    arrays = {
        "2-D": hu[0], "4-D": np.stack([hu[:4]] * 2), "constant": np.zeros_like(hu), "NaN": with_nan,
        "8-bit": np.random.default_rng(0).integers(0, 256, hu.shape).astype(np.uint8),
        "no air": np.abs(hu), "one row": hu[:, :1], "one column": hu[:, :, :1],
        "noise": np.random.default_rng(0).normal(-400, 500, hu.shape).astype(np.int16),
        "huge values": hu.astype(np.float64) * 1e30, "upside down": hu[::-1],
        "back to front": hu[:, ::-1], "turned": np.rot90(hu, axes=(1, 2)),
        "unsigned": (hu.astype(int) + 32768).astype(np.uint16), "all air": np.full_like(hu, -1000),
        "one voxel": hu[:1, :1, :1],
    }
    inputs = []
    for name, array in arrays.items():
        for suffix in (".nii.gz", ".nrrd", ".mha"):
            image = sitk.GetImageFromArray(np.ascontiguousarray(array))
            if image.GetDimension() == 3:
                image.SetSpacing(truth.spacing_mm[::-1])
            path = tmp_path / f"{name}{suffix}"
            sitk.WriteImage(image, str(path))
            inputs.append((f"{name}{suffix}", lambda path=path: read_whole(path)))
    for name, content in {"empty": b"", "text": b"no image\n" * 50, "zip": b"PK\x03\x04" * 99,
                          "png": b"\x89PNG\r\n\x1a\n" * 60, "zeros": bytes(2000)}.items():
        for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm", "", ".jpg"):
            path = tmp_path / f"{name}{suffix or '_plain'}"
            path.write_bytes(content)
            inputs.append((path.name, lambda path=path: read_whole(path)))
    check("images, kind", inputs)


def test_masks_that_belong_to_nothing(files, tmp_path):
    content, truth = files
    (tmp_path / "ct.nii.gz").write_bytes(content["nii.gz"])
    scan = read_scan(tmp_path / "ct.nii.gz")
    labels = (truth.hu > 100).astype(np.uint8)
    shifted = np.array(truth.spacing_mm[::-1]) * [1, 1, 1.5]
    changes = {"other shape": (labels[1:], None), "other spacing": (labels, shifted),
               "codes": (labels * 7, None), "fractions": (labels * 0.4, None),
               "negative": (-labels.astype(np.int16), None), "2-D": (labels[0], None)}
    inputs = [("the scan itself", lambda: read_mask(tmp_path / "ct.nii.gz", scan)),
              ("absent", lambda: read_mask(tmp_path / "absent.nii.gz", scan))]
    for name, (array, spacing) in changes.items():
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        if image.GetDimension() == 3:
            image.CopyInformation(sitk.ReadImage(str(tmp_path / "ct.nii.gz"))) \
                if array.shape == truth.shape else None
            if spacing is not None:
                image.SetSpacing(spacing.tolist())
        path = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(image, str(path))
        inputs.append((name, lambda path=path: read_mask(path, scan)))
        if name not in ("codes", "negative"):
            inputs.append((f"{name}, lung", lambda path=path: read_lung_mask(path, scan),
                           lambda mask: False))
    check("masks", inputs)


def test_series_cut_or_changed(tmp_path):
    import pydicom
    rng = np.random.default_rng(5)
    truth = read_scan(make_series(tmp_path / "whole"))
    inputs = []

    def series(spoil):
        folder = make_series(tmp_path / f"s{len(inputs)}")
        spoil(sorted(folder.iterdir())[-1])
        return lambda: read_scan(folder)

    def cut(path, at):
        path.write_bytes(path.read_bytes()[:at])

    def change(path, at):
        content = bytearray(path.read_bytes())
        content[min(at, len(content) - 1)] ^= 0x5A  # files differ in length, as their UIDs do
        path.write_bytes(content)

    def tag(path, name, value):
        dataset = pydicom.dcmread(path)
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
        dataset.save_as(path)

    size = min(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    for at in rng.integers(0, size - 1, 15):
        inputs.append((f"cut at {at}", series(lambda p, at=at: cut(p, at)),
                       lambda scan: np.array_equal(scan.hu, truth.hu)))
    for at in rng.integers(0, size, 15):
        inputs.append((f"changed at {at}", series(lambda p, at=at: change(p, at)), None, True))
    for name, value in (
            ("ImagePositionPatient", None), ("ImageOrientationPatient", None),
            ("PixelSpacing", None), ("PixelSpacing", [0, 0]), ("PixelSpacing", [-1, 1]),
            ("PixelSpacing", [2, 2]), ("Modality", "MR"), ("Rows", 3), ("BitsAllocated", 8),
            ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), ("ImagePositionPatient", [0, 0, 1]),
            ("ImagePositionPatient", [0, 0, 900]), ("ImagePositionPatient", [0, 0, 10]),
            ("SeriesInstanceUID", "9.8.7"), ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
            ("SamplesPerPixel", 3), ("PixelData", None), ("SOPClassUID", "1.2.3.4")):
        inputs.append((f"{name} = {value}", series(lambda p, n=name, v=value: tag(p, n, v)),
                       lambda scan: scan.n_slices == truth.n_slices))
    check("DICOM", inputs)


def test_manifests_and_splits(tmp_path):
    whole = (MANIFESTS / "phantom.csv").read_text(encoding="utf-8")
    split_text = (MANIFESTS / "splits_phantom.csv").read_text(encoding="utf-8")
    good = read_manifest(MANIFESTS / "phantom.csv").frame
    rng = np.random.default_rng(9)
    table = pd.read_csv(MANIFESTS / "phantom.csv", dtype=str, keep_default_na=False)
    inputs = []

    def manifest(content):
        path = tmp_path / f"m{len(inputs)}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

        def read():
            frame = read_manifest(path).frame
            read_splits(MANIFESTS / "splits_phantom.csv", frame)
            return frame
        return read

    def with_cell(column, value):
        changed = table.copy()
        changed.loc[2, column] = value
        return changed.to_csv(index=False)

    for column, values in {
            "case_id": HOSTILE, "patient_id": HOSTILE[:6], "cohort": ("", "other", "a/b"),
            "role": ("", "train", "CV"), "image": ("", "/abs.nii", "../up.nii", "a\\b.nii", "C:/x"),
            "exclude": ("", "2", "maybe", "1"), "n_slices": ("-1", "1.5", "many", "1e9", "inf"),
            "slice_gap_mm": ("0", "-5", "thick", "nan?"), "mask_kind": ("", "other"),
            "protocol": ("", "yes"), "age": ("-1", "400", "old"), "sex": ("x",),
            "image_sha256": ("abc", "g" * 64), "scanner": ("2020-01-31", "1.2.840.113619.2.55.3"),
            "mask": ("images/P003.nii.gz", "")}.items():
        for value in values:
            inputs.append((f"{column} = {value!r}", manifest(with_cell(column, value))))
    for column in ("case_id", "role", "image", "exclude", "patient_id"):
        inputs.append((f"without {column}", manifest(table.drop(columns=column).to_csv())))
    for at in rng.integers(0, len(whole) - 2, 12):
        inputs.append((f"cut at {at}", manifest(whole[:at]),
                       lambda frame: frame.equals(good)))
    for name, content in {
            "empty": "", "header": whole.splitlines()[0], "semicolons": whole.replace(",", ";"),
            "tabs": whole.replace(",", "\t"), "UTF-16": whole.encode("utf-16"),
            "Latin-1": whole.replace("Centre 1", "Zürich").encode("latin-1"),
            "open quote": whole.replace("Centre 1", '"Centre 1', 1), "NUL": whole + "\0",
            "twice": whole + whole.partition("\n")[2], "binary": bytes(range(256)) * 9,
            "one field more": whole.replace("Centre 1", "Centre 1,x", 1)}.items():
        inputs.append((name, manifest(content)))
    for name, content in {
            "splits empty": "", "splits header": split_text.splitlines()[0],
            "splits letter": split_text.replace(",0,", ",zero,", 1),
            "splits fraction": split_text.replace(",0,", ",0.5,", 1),
            "splits twice": split_text + split_text.partition("\n")[2],
            "splits cut": split_text[:len(split_text) // 2],
            "splits semicolons": split_text.replace(",", ";"),
            "splits infinite": split_text.replace(",0,", ",inf,", 1)}.items():
        path = tmp_path / f"{name}.csv"
        path.write_text(content)
        inputs.append((name, lambda path=path: read_splits(path, good)))
    check("manifests, splits", inputs)


def test_tables_of_readings(tmp_path):
    whole = (EXAMPLE / "measurements.csv").read_text(encoding="utf-8")
    good = measurements.read(EXAMPLE / "measurements.csv")
    lines = whole.splitlines(keepends=True)
    rng = np.random.default_rng(3)
    inputs = []

    def table(content):
        path = tmp_path / f"t{len(inputs)}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return lambda: measurements.read(path)

    for at in rng.integers(0, len(whole) - 2, 15):
        # At the very end of a line, a shorter table is a table.
        inputs.append((f"cut at {at}", table(whole[:at]), lambda frame: frame.equals(good),
                       whole[at - 1] == "\n"))
    columns = lines[0].strip().split(",")
    for column, values in {
            "volume_ml": ("-1", "inf", "1,5", "many", "1e400"), "dice": ("1.5", "-0.1", "x"),
            "n_voxels": ("1.5", "-3"), "structure": ("", "heart"), "role": ("", "test"),
            "status": ("", "maybe", "failed"), "case_id": ("",), "tp": ("-1", "9" * 30),
            "reader": ("",), "slices_with": ("99999",)}.items():
        for value in values:
            cells = lines[3].rstrip("\n").split(",")
            cells[columns.index(column)] = f'"{value}"'
            inputs.append((f"{column} = {value!r}",
                           table("".join([*lines[:3], ",".join(cells) + "\n", *lines[4:]]))))
    for name, content in {
            "empty": "", "header": lines[0], "twice": whole + "".join(lines[1:]),
            "semicolons": whole.replace(",", ";"), "UTF-16": whole.encode("utf-16"),
            "Latin-1": whole.replace("Scanner A", "Zürich").encode("latin-1"),
            "binary": bytes(range(256)) * 9, "no last line's end": whole.rstrip("\n"),
            "a column twice": lines[0].strip() + ",dice\n" + lines[1].strip() + ",1\n"}.items():
        inputs.append((name, table(content)))
    check("measurements", inputs)


def test_wide_tables_of_users(tmp_path):
    inputs = []

    def wide(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        call = {"case_id": "id", "readers": {"a": "expert", "b": "model"}, "structure": "lesion",
                "unit": "mL", **options}
        inputs.append((name, lambda: measurements.from_wide(path, **call)))

    table = "id,a,b\n1,2.5,3\n2,4,5\n3,6,7\n"
    wide("empty.csv", "")
    wide("header.csv", "id,a,b\n")
    wide("binary.csv", bytes(range(256)) * 9)
    wide("latin.csv", table.replace("1,", "é,").encode("latin-1"))
    wide("text.csv", table.replace("2.5", "much"))
    wide("negative.csv", table.replace("2.5", "-2.5"))
    wide("infinite.csv", table.replace("2.5", "inf"))
    wide("repeated.csv", table + "1,2,3\n")
    wide("no_reader.csv", table.replace("a", "c"))
    wide("no_case.csv", table.replace("id", "c"))
    wide("fake.xlsx", table)
    wide("zip.xlsx", b"PK\x03\x04" + bytes(200))
    wide("unit.csv", table, unit="pints")
    wide("structure.csv", table, structure="heart")
    names_of_genes = ",".join(f"c{k}" for k in range(60_000))
    start = time.monotonic()
    wide("turned.csv", f"{names_of_genes}\n{names_of_genes}\n")
    check("wide tables", inputs)
    assert time.monotonic() - start < 20, "60,000 columns take minutes"


def test_networks_and_records_of_another_make(checkpoint_file, tmp_path):
    """A checkpoint or a run.json whose fields are not what this package writes."""
    saved, inputs = read_checkpoint(checkpoint_file), []
    nan = {**saved["state"], "main_head.0.weight": saved["state"]["main_head.0.weight"] * np.nan}
    for number, (field, value) in enumerate([
            ("hu_window", 5), ("hu_window", (0.0, 255.0)), ("hu_window", "wide"), ("name", 7),
            ("name", "nnunet"), ("network", []), ("network", {"depth": 3}), ("state", []),
            ("state", {}), ("state", {"a": "b"}), ("state", nan), ("trained_on", "phantoms"),
            ("trained_on", {"cohorts": 3}), ("trained_on", {"synthetic": True})]):
        path = tmp_path / f"{number}.pt"
        save_tensors({**saved, field: value}, path)
        inputs.append((f"{field} = {str(value)[:20]}", lambda path=path: load_network(path)))
    content = checkpoint_file.read_bytes()
    for at in np.random.default_rng(5).integers(1, len(content), 10):
        path = tmp_path / f"cut at {at}.pt"
        path.write_bytes(content[:at])
        inputs.append((path.name, lambda path=path: load_network(path)))
    check("networks", inputs)

    whole, inputs = (EXAMPLE / "run.json").read_text(encoding="utf-8"), []
    for at in np.random.default_rng(6).integers(0, len(whole) - 2, 10):
        folder = tmp_path / f"run {at}"
        folder.mkdir()
        (folder / "run.json").write_text(whole[:at], encoding="utf-8")
        inputs.append((folder.name, lambda folder=folder: read_run(folder)))
    for text in ("[30]", "3", "{}", '{"config": {}}', '{"config": {"cohorts": 3}}'):
        folder = tmp_path / f"other {len(text)}"
        folder.mkdir()
        (folder / "run.json").write_text(text)
        inputs.append((folder.name, lambda folder=folder: read_run(folder)))
    check("records of runs", inputs)


def test_lung_masks_of_something_else(files, tmp_path):
    _, scan = files
    lungs = segment_lungs(scan).mask
    body = scan.hu > -400
    inputs = []
    for name, wrong in {
            "mirrored": lungs[:, :, ::-1], "upside down": lungs[::-1], "turned": lungs[:, ::-1],
            "moved along": np.roll(lungs, 12, 0), "moved across": np.roll(lungs, 14, 2),
            "the body": body, "everything": np.ones_like(lungs),
            "their inside": ndimage.binary_erosion(lungs, iterations=5),
            "the air around": ~body & ~lungs, "bone": scan.hu > 200,
            "the right one alone": lungs & (np.arange(scan.shape[2]) < scan.shape[2] // 2)}.items():
        given = LungMask.like(scan, np.ascontiguousarray(wrong), "reference", name)
        inputs.append((name, lambda given=given: require_fitting_lungs(scan, given)))
    right = LungMask.like(scan, lungs, "reference", "right")
    inputs.append(("right", lambda: require_fitting_lungs(scan, right), lambda _: True))
    check("lung masks", inputs)


@pytest.fixture
def command(tmp_path, chest_file, checkpoint_file, monkeypatch):
    """Run a command; refused is exit code 1 or 2 with words, and nothing left behind."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(chest_file, folder / "ct.nii.gz")
    shutil.copy(checkpoint_file, folder / "net.pt")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DEEPLUNG_RESULTS", str(folder / "results"))
    monkeypatch.delenv("DEEPLUNG_DATA", raising=False)

    def run(*arguments):
        before = names(tmp_path)
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as error:  # argparse
                code = error.code
        assert "Traceback" not in said.getvalue()
        if code:
            assert names(tmp_path) == before, "something was left behind"
            raise ValueError(said.getvalue() or "silent")
        return code
    return run


def test_commands_with_odd_arguments(command, files, tmp_path):
    content, _ = files
    work = tmp_path / "work"
    segment = ("segment", "ct.nii.gz", "--checkpoint", "net.pt", "--output", "out")
    inputs = [(f"case id {name!r}", lambda name=name: command(*segment, f"--case-id={name}"))
              for name in HOSTILE]
    whole = (work / "net.pt").read_bytes()
    for at in np.random.default_rng(2).integers(0, len(whole), 8):
        path = work / f"cut{at}.pt"
        path.write_bytes(whole[:at])
        inputs.append((f"network cut at {at}", lambda path=path: command(
            "segment", "ct.nii.gz", "--checkpoint", path, "--output", "out")))
    for at in np.random.default_rng(2).integers(0, len(whole), 8):
        path = work / f"changed{at}.pt"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1:])
        inputs.append((f"network changed at {at}", lambda path=path: command(
            "segment", "ct.nii.gz", "--checkpoint", path, "--output", f"o-{path.stem}"),
            None, True))
    (work / "cut.nii.gz").write_bytes(content["nii.gz"][:9000])
    (work / "text.pt").write_text("no network")
    (work / "file").write_text("")
    (work / "empty").mkdir()
    for name, arguments in {
            "nothing": (), "unknown command": ("fly",), "no scan": ("segment",),
            "no output": ("segment", "ct.nii.gz"), "empty output": (*segment[:-1], "file"),
            "output below a file": (*segment[:-1], "file/below"),
            "scan absent": ("segment", "absent", *segment[2:]),
            "scan cut": ("segment", "cut.nii.gz", *segment[2:]),
            "scan is a text": ("segment", "file", *segment[2:]),
            "scan is an empty folder": ("segment", "empty", *segment[2:]),
            "lung mask absent": (*segment, "--lung-mask", "absent.nii.gz"),
            "lung mask is the scan": (*segment, "--lung-mask", "ct.nii.gz"),
            "lung mask is cut": (*segment, "--lung-mask", "cut.nii.gz"),
            "network absent": ("segment", "ct.nii.gz", "--checkpoint", "absent", *segment[4:]),
            "network is a text": ("segment", "ct.nii.gz", "--checkpoint", "text.pt", *segment[4:]),
            "network is a folder": ("segment", "ct.nii.gz", "--checkpoint", "empty", *segment[4:]),
            "network is the scan": ("segment", "ct.nii.gz", "--checkpoint", "ct.nii.gz",
                                    *segment[4:]),
            "series of no folder": ("segment", "ct.nii.gz", "--series", "list"),
            "unknown option": (*segment, "--fast"),
            "profile": ("reproduce", "--profile", "odd"),
            "profile file": ("reproduce", "--profile", "absent.json"),
            "profile of another kind": ("reproduce", "--profile", "file.json"),
            "no data": ("reproduce", "--profile", "public"),
            "data absent": ("reproduce", "--profile", "public", "--data", "absent"),
            "data empty": ("reproduce", "--profile", "public", "--data", "empty"),
            "results is a file": ("reproduce", "--results", "file"),
            "digest of nothing": ("digest", "absent"), "digest of a text": ("digest", "file"),
            "digest of an empty folder": ("digest", "empty"),
            "manifest of nothing": ("manifest", "medseg2", "absent"),
            "manifest of an empty folder": ("manifest", "medseg2", "empty"),
            "manifest of another set": ("manifest", "mosmed", "empty")}.items():
        inputs.append((name, lambda arguments=arguments: command(*arguments)))
    (work / "file.json").write_text("[1, 2]")
    check("commands", inputs)
    assert not list(tmp_path.rglob("escaped*"))
    assert not list(tmp_path.rglob(".part-*"))


def test_the_tally_of_all(capsys):
    """Last of the file: how many there were, and what became of them."""
    groups = sorted({group for group, _ in TALLY})
    if len(groups) < 11:
        pytest.skip("counts only after the whole file")
    with capsys.disabled():
        print("\n\nmalformed inputs      refused  right  unknowable")
        for group in groups:
            print(f"{group:<20}{TALLY[group, 'refused']:9}{TALLY[group, 'right']:7}"
                  f"{TALLY[group, 'unknowable']:12}")
        print(f"{sum(TALLY.values())} inputs: 0 tracebacks, 0 wrong results, 0 half files")
    assert sum(TALLY.values()) >= 350
    assert sum(n for (_, what), n in TALLY.items() if what == "unknowable") < 0.3 * TALLY.total()
