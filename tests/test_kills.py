"""Killed at any moment, on a full disk, on one that is read-only, two at once: whole or not there.

Of each work that writes files which belong together. The rename itself is in test_files.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplung_nb.files import recover, remove_leftovers, sha256_of
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, read_scan, write_scan
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.network.packaged import packaged_checkpoints

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "results" / "example" / "measurements.csv"
MOMENTS = 20


class Zygote:
    """See zygote.py."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, str(HERE / "zygote.py")], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, work, **when):
        name, arguments = work
        self.process.stdin.write(json.dumps({"work": name, "arguments": arguments, **when}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.process.stdin.close()
    made.process.wait()


@pytest.fixture(scope="module")
def small_ct(chest_file, tmp_path_factory):
    """Some slices of a chest: quick to measure."""
    scan = read_scan(chest_file)
    hu = np.ascontiguousarray(scan.hu[::4, ::2, ::2])
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    gap, row, column = scan.spacing_mm
    write_scan(Scan(hu, Grid.upright(hu.shape, (4 * gap, 2 * row, 2 * column)), "ct"), path)
    return path


class Segment:
    files = ("ct_lesions.nii.gz", "ct_measurements.csv", "ct_provenance.json")

    def __init__(self, ct, checkpoint, **_):
        self.ct, self.checkpoint = str(ct), str(checkpoint)

    def order(self, folder):
        return "command", {"arguments": ["segment", self.ct, "--output", str(folder), "--force",
                                         "--overwrite", "--checkpoint", self.checkpoint]}

    def check(self, folder):
        """The provenance has the hashes of the other two."""
        record = json.loads((folder / self.files[2]).read_text())
        for name in self.files[:2]:
            assert record["outputs"][name] == sha256_of(folder / name)
        read_mask(folder / self.files[0], read_scan(self.ct), {1: 1, 2: 2})


class Packaged:
    files = ("tiny-0.pt", "tiny-1.pt", "card.json")

    def __init__(self, checkpoint, results, **_):
        self.checkpoint, self.results = str(checkpoint), str(results)

    def order(self, folder):
        return "train_packaged", {"checkpoint": self.checkpoint, "output": str(folder),
                                  "results": self.results}

    def check(self, folder):
        assert len(packaged_checkpoints(folder)) == 2


class Manifest:
    files = ("medseg2.csv", "splits_medseg2.csv")

    def __init__(self, data, **_):
        from test_public import fake_medseg2
        self.data = fake_medseg2(data, (1, 2, 3, 5, 6, 8))

    def order(self, folder):
        return "command", {"arguments": ["manifest", "medseg2", str(self.data), "--output",
                                         str(folder), "--overwrite"]}

    def check(self, folder):
        assert [len((folder / name).read_text().splitlines()) for name in self.files] == [7, 7]


class Export:
    files = tuple(f"model_vs_expert_ggo_volume_ml.{suffix}" for suffix in
                  ("csv", "tex", "docx", "txt", "py", "pdf", "svg", "png"))

    def __init__(self, **_):
        pass

    def order(self, folder):
        return "export_answer", {"table": str(EXAMPLE), "folder": str(folder)}

    def check(self, folder):
        for name in self.files:
            assert (folder / name).stat().st_size > 0


@pytest.fixture(scope="module", params=[Segment, Packaged, Manifest, Export],
                ids=["segment", "train-packaged", "manifest", "export"])
def work(request, small_ct, checkpoint_file, tmp_path_factory):
    return request.param(ct=small_ct, checkpoint=checkpoint_file,
                         results=tmp_path_factory.mktemp("results"),
                         data=tmp_path_factory.mktemp("data") / "set")


def there(work, folder):
    return [name for name in work.files if (folder / name).exists()]


def require_all_or_none(work, folder):
    """Also before anybody mends it: what says that all is there comes last."""
    found = there(work, folder)
    if work.files[-1] in found and not isinstance(work, Export):
        assert len(found) == len(work.files)
        work.check(folder)
    recover(folder)
    remove_leftovers(folder)
    found = there(work, folder)
    assert found in ([], list(work.files))
    if found:
        work.check(folder)
    left = {path.name for path in folder.iterdir()} - set(work.files) - {".part-lock"}
    assert not {name for name in left if name.startswith(".part")}


@pytest.mark.nightly
def test_a_kill_at_any_rename_leaves_all_or_nothing(work, zygote, tmp_path):
    # Each answer takes seconds to draw: of its renames, some.
    for nth in range(1, 80, 4 if isinstance(work, Export) else 1):
        folder = tmp_path / str(nth)
        folder.mkdir()
        code = zygote(work.order(folder), nth=nth)["code"]
        assert code in (0, -9)
        require_all_or_none(work, folder)
        if code == 0:
            break
        shutil.rmtree(folder)
    assert code == 0
    assert nth > len(work.files), "the kills did not reach the renames"


@pytest.mark.nightly
def test_a_kill_at_any_moment_leaves_all_or_nothing(work, zygote, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    done = zygote(work.order(folder))
    assert done["code"] == 0, done["said"]
    rng = np.random.default_rng(0)
    killed = 0
    for moment in rng.uniform(0.0, done["seconds"], MOMENTS):
        # Into a new folder, and over what is there.
        fresh = rng.random() < 0.5
        if fresh or isinstance(work, Export):  # which replaces nothing
            shutil.rmtree(folder)
            folder.mkdir()
        killed += zygote(work.order(folder), seconds=float(moment))["code"] == -9
        require_all_or_none(work, folder)
    assert killed > MOMENTS / 3
    if isinstance(work, Export):
        shutil.rmtree(folder)
        folder.mkdir()
    done = zygote(work.order(folder))
    assert done["code"] == 0, done["said"]
    work.check(folder)


def test_a_full_disk_leaves_nothing_and_says_so(work, zygote, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    found = zygote(work.order(folder), file_size=64)
    assert found["code"] == 1
    assert "too large" in found["said"].lower() or "disk full" in found["said"], found["said"]
    # train-packaged keeps its checkpoints in a run folder first.
    assert str(folder) in found["said"] or str(getattr(work, "results", folder)) in found["said"]
    recover(folder)
    assert there(work, folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="root's privileges are dropped as Linux does")
def test_a_read_only_folder_is_said_and_left(work, zygote, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o555)
    found = zygote(work.order(folder), no_privileges=True)
    folder.chmod(0o755)
    assert found["code"] == 1
    assert "ermission" in found["said"], found["said"]
    assert str(folder) in found["said"]
    assert list(folder.iterdir()) == []


@pytest.mark.nightly
def test_two_at_once_leave_the_whole_work_of_one(work, tmp_path):
    if isinstance(work, Export):
        pytest.skip("export replaces nothing: the second takes another name")
    both = [Zygote(), Zygote()]
    folder = tmp_path / "out"
    folder.mkdir()
    for one in both:
        name, arguments = work.order(folder)
        one.process.stdin.write(json.dumps({"work": name, "arguments": arguments}) + "\n")
        one.process.stdin.flush()
    told = [json.loads(one.process.stdout.readline()) for one in both]
    for one in both:
        one.process.stdin.close()
        one.process.wait()
    assert [one["code"] for one in told] == [0, 0], told
    require_all_or_none(work, folder)
    assert there(work, folder) == list(work.files)
