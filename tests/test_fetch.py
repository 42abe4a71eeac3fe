"""Published sets: terms first, downloads that go on, hashes, archives that do no harm.

A server on loopback stands for the publishers', with small archives of the same layout.
"""

import dataclasses
import hashlib
import http.server
import io
import stat
import threading
import zipfile
from functools import partial

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.__main__ import main
from deeplung_nb.cohorts import fetch as room
from deeplung_nb.cohorts.adapters import make_manifest, names
from deeplung_nb.cohorts.adapters.covid_ct_seg_20 import patient_of
from deeplung_nb.cohorts.fetch import Dataset, FetchError, PublishedFile, fetch, published
from deeplung_nb.cohorts.manifest import check_apart, read_manifest
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.cohorts.unpack import ArchiveError, unpack
from deeplung_nb.imaging.io import read_scan, write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask

DATA = bytes(range(256)) * 8000


class Publisher(http.server.BaseHTTPRequestHandler):
    """Serves `files`; `habits` say how: breaks off after so many bytes, no ranges, away."""

    def __init__(self, files, habits, asked, *rest):
        self.files, self.habits, self.asked = files, habits, asked
        super().__init__(*rest)

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.strip("/")
        self.asked.append((name, self.headers.get("Range")))
        if name not in self.files or self.habits.get("away"):
            self.send_error(503 if self.habits.get("away") else 404)
            return
        data, start = self.files[name], 0
        wanted = self.headers.get("Range")
        if wanted and not self.habits.get("no_ranges"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        most = self.habits.get("breaks_after", len(data))
        self.wfile.write(data[start:start + most])


@pytest.fixture
def publisher(monkeypatch):
    """(files, habits, asked, address)."""
    files, habits, asked = {}, {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                             partial(Publisher, files, habits, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(room, "WAIT_SECONDS", 0.0)
    yield files, habits, asked, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def a_set(monkeypatch, address, *files, name="a_set"):
    """One data set with these (name, hash)."""
    one = Dataset(name, "A set", "CC0", "Somebody 2020", url="http://somewhere", files=tuple(
        PublishedFile(file, f"{address}/{file}", digest) for file, digest in files))
    monkeypatch.setattr(room, "datasets", lambda: {name: one})
    return one


def sha(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_a_file_comes_whole_and_is_not_fetched_twice(publisher, monkeypatch, tmp_path):
    files, _, asked, address = publisher
    files["x.bin"] = DATA
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    for _ in range(2):
        path, = fetch("a_set", tmp_path, progress=False)
        assert path.read_bytes() == DATA
    assert len(asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(publisher, monkeypatch, tmp_path):
    files, habits, asked, address = publisher
    files["x.bin"] = DATA
    habits["breaks_after"] = 700_000
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    path, = fetch("a_set", tmp_path, progress=False)
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted in asked] == [None, "bytes=700000-", "bytes=1400000-"]


def test_what_has_come_is_kept_for_the_next_call(publisher, monkeypatch, tmp_path):
    files, habits, asked, address = publisher
    files["x.bin"] = DATA
    habits["breaks_after"] = 100_000
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    with pytest.raises(FetchError, match=r"broke off after 400000 of .* the same command goes on"):
        fetch("a_set", tmp_path, progress=False)
    assert not (tmp_path / "x.bin").exists()
    habits.clear()
    path, = fetch("a_set", tmp_path, progress=False)
    assert path.read_bytes() == DATA
    assert asked[-1][1] == "bytes=400000-"


def test_a_server_that_knows_no_ranges_begins_anew(publisher, monkeypatch, tmp_path):
    files, habits, _, address = publisher
    files["x.bin"] = DATA
    (tmp_path / "x.bin.partial").write_bytes(b"something else")
    habits["no_ranges"] = True
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    assert fetch("a_set", tmp_path, progress=False)[0].read_bytes() == DATA


def test_another_file_than_the_published_one_is_not_kept(publisher, monkeypatch, tmp_path):
    files, _, _, address = publisher
    files["x.bin"] = DATA[:-1] + b"!"
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    with pytest.raises(FetchError, match="is not the published one"):
        fetch("a_set", tmp_path, progress=False)
    assert not (tmp_path / "x.bin").exists()


@pytest.mark.parametrize(("habit", "name"), [("away", "x.bin"), (None, "absent.bin")])
def test_a_server_without_an_answer_is_told_with_its_remedy(publisher, monkeypatch, tmp_path, habit,
                                                           name):
    files, habits, asked, address = publisher
    files["x.bin"] = DATA
    habits.update({habit: True} if habit else {})
    a_set(monkeypatch, address, (name, None))
    with pytest.raises(FetchError, match=rf"{name} is missing .* put {name} of .* yourself"):
        fetch("a_set", tmp_path, progress=False)
    assert len(asked) == (room.TRIES if habit else 1)  # what is not there is not asked for again


def test_only_web_addresses_are_followed(monkeypatch, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    one = a_set(monkeypatch, "http://x", ("x.bin", None))
    bad = dataclasses.replace(one, files=(PublishedFile("x.bin", secret.as_uri()),))
    monkeypatch.setattr(room, "datasets", lambda: {"a_set": bad})
    with pytest.raises(FetchError, match=r"(?i)file"):
        fetch("a_set", tmp_path / "d", progress=False)
    assert not (tmp_path / "d" / "x.bin").exists()


def test_archives_unpack_each_into_its_own_folder(publisher, monkeypatch, tmp_path):
    files, _, _, address = publisher
    files["images.zip"] = zipped(**{"1.nii": b"image", "__MACOSX/._1.nii": b"x"})
    files["masks.zip"] = zipped(**{"masks/1.nii": b"mask"})
    a_set(monkeypatch, address, ("images.zip", None), ("masks.zip", None))
    found = fetch("a_set", tmp_path, progress=False)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["images/1.nii",
                                                                         "masks/1.nii"]
    assert [path.read_bytes() for path in found] == [b"image", b"mask"]


@pytest.mark.parametrize("name", ["../out.nii", "/etc/out.nii", "a/../../out.nii", "C:/out.nii",
                                  "..\\out.nii", "C:\\out.nii"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(**{"good.nii": b"x", name: b"bad"}))
    with pytest.raises(ArchiveError, match="leaves its folder"):
        unpack(archive)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.zip"]


def test_links_are_refused_and_none_is_followed(tmp_path):
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(entry, "/etc")
    with pytest.raises(ArchiveError, match="is a link or a device"):
        unpack(archive)
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "b" / "x").symlink_to(tmp_path)  # it was there before
    inside = tmp_path / "in" / "b.zip"
    inside.write_bytes(zipped(**{"x/y.nii": b"bad"}))
    with pytest.raises(ArchiveError, match="goes through a link"):
        unpack(inside)
    assert not (tmp_path / "y.nii").exists()


def test_a_bomb_is_known_by_what_it_says(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for k in range(3):
            with content.open(f"{k}.nii", "w", force_zip64=True) as stream:
                for _ in range(60):
                    stream.write(bytes(1 << 23))
    with pytest.raises(ArchiveError, match=r"unpacks to 1\.5 GB by its own word"):
        unpack(archive)


def test_a_bomb_that_lies_is_known_while_it_unpacks(tmp_path):
    data = zipped(**{"x.nii": bytes(1 << 20)})
    true, small = (1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    archive = tmp_path / "a.zip"
    archive.write_bytes(data.replace(true, small))
    with pytest.raises(ArchiveError, match=r"longer than the 1000 bytes|is damaged"):
        unpack(archive)
    assert not list((tmp_path / "a").glob("*"))


@pytest.mark.parametrize("others", [("a/X.nii", "a/x.nii"), ("A/x.nii", "a/x.nii")])
def test_names_that_are_one_file_on_some_systems_are_refused(tmp_path, others):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**dict.fromkeys(others, b"x")))
    with pytest.raises(ArchiveError, match="are one file on some systems"):
        unpack(archive)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("x.nii", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            content.writestr("x.nii", b"2")
    with pytest.raises(ArchiveError, match="are one file"):
        unpack(archive)


def test_damaged_archives_are_told(tmp_path):
    archive = tmp_path / "a.zip"
    whole = zipped(**{"x.nii": np.random.default_rng(0).bytes(50_000)})
    archive.write_bytes(whole[:30_000])
    with pytest.raises(ArchiveError, match="can't be read as a zip"):
        unpack(archive)
    broken = bytearray(whole)
    broken[20_000:20_050] = bytes(50)
    archive.write_bytes(bytes(broken))
    with pytest.raises(ArchiveError, match="is damaged"):
        unpack(archive)
    assert not (tmp_path / "a" / "x.nii").exists()


def test_nothing_is_fetched_before_somebody_agrees(publisher, monkeypatch, tmp_path, capsys):
    files, _, asked, address = publisher
    files["x.bin"] = DATA
    a_set(monkeypatch, address, ("x.bin", sha(DATA)))
    call = ["fetch", "a_set", "--folder", str(tmp_path)]
    assert main(call) == 1
    said = capsys.readouterr()
    assert "CC0" in said.out
    assert "Somebody 2020" in said.out
    assert "--agree" in said.err
    assert not asked
    assert main([*call, "--agree"]) == 0
    assert (tmp_path / "x.bin").exists()


def test_where_one_must_register_it_says_what_to_get_and_where_to_put_it(tmp_path, capsys):
    assert main(["fetch", "mosmed", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "CC BY-NC-ND" in said.out
    assert "https://mosmed.ai" in said.err
    assert f"deeplung-nb manifest mosmed {tmp_path}" in said.err
    assert main(["fetch", "nothing"]) == 1
    assert "expected one of" in capsys.readouterr().err


def test_every_published_set_has_terms_and_a_way():
    known = published()
    assert {"medseg1", "medseg2", "covid_ct_seg_20", "mosmed", "covid_19_20",
            "longciu"} <= set(known)
    for one in known.values():
        assert one.licence
        assert one.citation
        assert one.licence in one.terms()


@pytest.fixture(scope="module")
def chest(chest_file):
    return read_scan(chest_file)


def place(chest, folder, image, mask, lungs=None):
    """A CT and its binary mask under the names of a set."""
    labels = np.zeros(chest.shape, np.uint8)
    labels[4:6, 40:50, 30:40] = 1
    for name, write in ((image, lambda p: write_scan(chest, p)),
                        (mask, lambda p: write_mask(LesionMask.like(chest, labels), p)),
                        (lungs, lambda p: write_mask(LesionMask.like(chest, labels), p))):
        if name:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)


LAYOUTS = {
    "covid_ct_seg_20": [(f"COVID-19-CT-Seg_20cases/{case}.nii.gz", f"Infection_Mask/{case}.nii.gz",
                         f"Lung_Mask/{case}.nii.gz") for case in (
        "coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3")],
    "mosmed": [(f"studies/CT-1/study_0{k}.nii.gz", f"masks/study_0{k}_mask.nii.gz")
               for k in (255, 304)],
    "covid_19_20": [(f"COVID-19-20_v2/Train/volume-covid19-A-{k}_ct.nii.gz",
                     f"COVID-19-20_v2/Train/volume-covid19-A-{k}_seg.nii.gz")
                    for k in ("0003", "0011")],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_sets_layout_becomes_a_manifest_that_opens(name, chest, tmp_path):
    folder = tmp_path / name
    for paths in LAYOUTS[name]:
        shift = np.int16(len(list(folder.rglob("*.nii.gz"))))
        place(type(chest)(chest.hu + shift, chest.grid, "x"), folder, *paths)
    path, = make_manifest(name, folder, tmp_path / "out")
    cohort = read_manifest(path, folder)
    assert len(cohort.frame) == len(LAYOUTS[name])
    assert set(cohort.frame.role) == {"external"}
    assert set(cohort.frame.mask_kind) == {"binary"}
    assert (cohort.frame.n_slices == chest.n_slices).all()
    # MosMed has 1,110 CTs and 50 masks: there a mask without its CT is a fault, elsewhere both are.
    (folder / LAYOUTS[name][0][0 if name == "mosmed" else 1]).unlink()
    with pytest.raises(ValueError, match="missing in"):
        make_manifest(name, folder, tmp_path / "again")
    with pytest.raises(ValueError, match=r"Register|Get them"):
        make_manifest(name, tmp_path / "out", tmp_path / "again")


def test_pictures_of_eight_bits_are_rows_that_are_not_used(chest, tmp_path):
    for k, paths in enumerate(LAYOUTS["covid_ct_seg_20"]):
        place(type(chest)(chest.hu + np.int16(k), chest.grid, "x"), tmp_path / "d", *paths)
    path, = make_manifest("covid_ct_seg_20", tmp_path / "d", tmp_path / "o")
    frame = pd.read_csv(path).set_index("case_id")
    assert frame.exclude.to_dict() == {"coronacases_001": 0, "radiopaedia_10_85902_1": 1,
                                       "radiopaedia_10_85902_3": 1}
    assert frame.exclude_reason.dropna().str.contains("8-bit").all()


def test_one_patient_has_one_id_in_all_sets():
    assert patient_of("coronacases_003") == "CC003"
    assert patient_of("radiopaedia_10_85902_1") == patient_of("radiopaedia_10_85902_3") == "P2"
    assert patient_of("radiopaedia_7_85703_0") == "P1"
    assert patient_of("radiopaedia_40_86625_0") == "R40"


def test_nobody_trains_in_one_set_and_is_external_in_another(tmp_path):
    rows = {"mask_kind": "binary", "protocol": "unknown", "exclude": 0, "image": "a", "mask": "b"}
    for name, case, patient, role in (("medseg2", "1", "P1", "cv"), (
            "covid_ct_seg_20", "r", patient_of("radiopaedia_7_85703_0"), "external")):
        frame = pd.DataFrame([{"cohort": name, "case_id": case, "patient_id": patient,
                               "role": role, **rows}]).reindex(columns=list(COLUMNS))
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    cohorts = [read_manifest(tmp_path / f"{name}.csv") for name in ("medseg2", "covid_ct_seg_20")]
    with pytest.raises(ValueError, match="patient_id 'P1' is in cv and in external"):
        check_apart(cohorts)


def test_adapters_are_named_as_their_sets():
    assert set(names()) <= set(published())
