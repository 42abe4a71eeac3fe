"""`import deeplung_nb as dl`: what stands there, and what it costs to import."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import deeplung_nb as dl
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import write_mask
from deeplung_nb.imaging.lungs import segment_lungs
from deeplung_nb.imaging.scan import LesionMask, Scan

NAMES = {"AgreementExplorer", "Segmenter", "agreement_table", "bland_altman", "correct", "measure",
         "open_run", "pair", "read_mask", "read_scan", "read_table", "report_text", "save_page",
         "view_case", "view_ct", "write_segmentation"}


def test_the_names_that_users_rely_on():
    assert set(dl.__all__) == {*NAMES, "__version__"}
    assert set(dir(dl)) == {*NAMES, "__version__"}
    for name in NAMES:
        assert callable(getattr(dl, name)), name
    with pytest.raises(AttributeError, match="no attribute 'segment_everything'"):
        dl.segment_everything  # noqa: B018


def test_importing_loads_nothing_and_statistics_load_no_torch():
    code = ("import sys, deeplung_nb as dl; assert 'pandas' not in sys.modules; "
            "dl.read_table, dl.pair, dl.bland_altman, dl.agreement_table, dl.report_text, "
            "dl.AgreementExplorer; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("package", "name", "extra"), [
    ("torch", "Segmenter", "network"), ("SimpleITK", "read_scan", "imaging")])
def test_a_package_that_is_not_installed_is_named_with_what_brings_it(package, name, extra):
    code = (f"import sys; sys.modules[{package!r}] = None\n"
            f"import deeplung_nb as dl\n"
            f"try: dl.{name}\n"
            f"except ModuleNotFoundError as error: print(error)")
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"needs {package}, which is not installed" in said.stdout
    assert f'pip install "deeplung_nb[{extra}]"' in said.stdout


def test_what_can_not_be_had_here_stops_no_look_around():
    code = ("import sys\n"
            "class Absent:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name.split('.')[0] == 'torch':\n"
            "            raise ModuleNotFoundError(name, name=name)\n"
            "sys.meta_path.insert(0, Absent())\n"
            "import inspect, deeplung_nb as dl\n"
            "names = dict(inspect.getmembers(dl))\n"
            "from deeplung_nb import *\n"
            "assert 'Segmenter' not in names and 'report_text' in names and callable(pair)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_names_what_is_not_installed_in_one_message():
    code = ("import sys; sys.modules['torch'] = None\n"
            "from deeplung_nb.__main__ import main; sys.exit(main(['segment', 'x.nii', "
            "'--output', 'y']))")
    said = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr.startswith("error: torch is not installed")
    assert "deeplung_nb[network]" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.fixture
def segmenter(checkpoint_file):
    return dl.Segmenter([checkpoint_file])


def test_a_ct_takes_three_lines_and_writing_is_a_fourth(segmenter, chest_file, tmp_path):
    scan = dl.read_scan(chest_file)
    result = segmenter(scan, progress=False)
    assert list(result.table.structure) == ["lung", "ggo", "high_opacity", "lesion"]
    assert result.mask.affine is scan.affine
    assert "synthetic chests only" in repr(segmenter)
    assert any("synthetic chests only" in warning for warning in result.warnings)
    written = dl.write_segmentation(result, tmp_path / "out")
    assert [path.name for path in written] == [
        "ct_lesions.nii.gz", "ct_measurements.csv", "ct_provenance.json", "ct_preview.png"]
    with pytest.raises(FileExistsError, match="is there already"):
        dl.write_segmentation(result, tmp_path / "out")
    np.testing.assert_array_equal(dl.read_mask(written.mask, scan).labels, result.mask.labels)


def test_a_path_does_as_well_and_gives_the_same(segmenter, chest_file):
    of_path, of_scan = (segmenter(given, progress=False)
                        for given in (chest_file, dl.read_scan(chest_file)))
    np.testing.assert_array_equal(of_path.mask.labels, of_scan.mask.labels)
    assert of_path.table.scan_sha256.notna().all()


def test_what_is_no_chest_is_refused_whoever_calls(segmenter):
    """A head: a ball of brain in a shell of bone. Nothing is said of its ground glass."""
    z, y, x = np.ogrid[:40, :128, :128]
    far = np.sqrt(((z - 20) * 5.0) ** 2 + ((y - 64) * 1.6) ** 2 + ((x - 64) * 1.6) ** 2)
    hu = np.where(far < 70, 35, np.where(far < 80, 900, -1000)).astype(np.int16)
    head = Scan(hu, Grid.upright(hu.shape, (5.0, 1.6, 1.6)), "head")
    segmenter.predictor.segment = lambda *a, **k: pytest.fail("it was segmented")
    with pytest.raises(ScanError, match="no lung was found"):
        segmenter(head)


def test_a_scan_made_in_memory_has_no_file_and_any_name(segmenter, chest_file, tmp_path,
                                                        monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = replace(dl.read_scan(chest_file), source="", case_id="Mein CT (1)")
    result = segmenter(scan, progress=False)
    assert result.provenance["scan"]["sha256"] is None
    written = dl.write_segmentation(result, "out")
    assert written.mask.is_file()
    assert " " not in written.mask.name


def test_options_are_known_at_once_and_one_checkpoint_needs_no_list(checkpoint_file):
    with pytest.raises(TypeError, match="no option 'bathc'"):
        dl.Segmenter(checkpoint_file, bathc=2)
    segmenter = dl.Segmenter(str(checkpoint_file), device="cpu")
    assert segmenter.checkpoints == [checkpoint_file]
    assert segmenter.predictor.device.type == "cpu"


def test_another_persons_lungs_are_refused(segmenter, chest_file, tmp_path):
    scan = dl.read_scan(chest_file)
    wrong = np.roll(segment_lungs(scan).mask, scan.shape[2] // 3, axis=2).astype(np.uint8)
    write_mask(LesionMask.like(scan, wrong), tmp_path / "lungs.nii.gz")
    with pytest.raises(ScanError, match="does not fit the lungs"):
        segmenter(scan, tmp_path / "lungs.nii.gz")
