"""Published data sets: the registry, fetching without a network, and manifests from disk."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
import SimpleITK as sitk

from deeplung_nb.cohorts import adapters, fetch, manifest, splits
from deeplung_nb.cohorts.adapters import medseg2

MANIFESTS = Path(__file__).resolve().parent.parent / "data_manifests"


def fake_medseg2(folder: Path, numbers: tuple[int, ...]) -> Path:
    """Tiny volumes in the layout of MedSeg 2."""
    for part, value in (("rp_im", 0), ("rp_msk", 100), ("rp_lung_msk", 200)):
        (folder / part).mkdir(parents=True)
        for number in numbers:
            image = sitk.GetImageFromArray(np.full((4, 3, 2), value + number, np.int16))
            image.SetSpacing((0.7, 0.7, 6.0))
            sitk.WriteImage(image, str(folder / part / f"{number}.nii.gz"))
    return folder


@pytest.mark.parametrize("name", sorted(fetch.datasets()))
def test_every_data_set_says_what_it_is_and_under_which_terms(name):
    dataset = fetch.datasets()[name]
    assert dataset.title
    assert dataset.licence
    assert dataset.citation
    for file in dataset.files:
        assert file.url.startswith("https://")
        assert file.hash is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.hash)


def test_headers_and_hashes_become_a_valid_manifest(tmp_path):
    folder = fake_medseg2(tmp_path / "data", (1, 2, 3, 5, 6, 8))
    csv, splits_csv = adapters.make_manifest("medseg2", folder, tmp_path)
    cohort = manifest.read_manifest(csv, folder)
    assert cohort.frame.n_slices.tolist() == [4] * 6
    assert cohort.frame.slice_gap_mm.tolist() == [6.0] * 6
    assert cohort.case("2").patient_id == cohort.case("3").patient_id
    frozen = splits.read_splits(splits_csv, cohort.frame)
    shipped = splits.read_splits(MANIFESTS / "splits_medseg2.csv")
    pd.testing.assert_frame_equal(frozen, shipped)


def test_all_nine_published_cases_are_dealt_anew(tmp_path):
    folder = fake_medseg2(tmp_path / "data", tuple(range(1, 10)))
    csv, splits_csv = adapters.make_manifest("medseg2", folder, tmp_path)
    table, split = pd.read_csv(csv), splits.read_splits(splits_csv)
    assert len(table) == len(split) == 9
    assert split.set_index("case_id").fold[["2", "3"]].nunique() == 1
    assert all(all(splits.fold_cases(split, fold)) for fold in range(3))


def test_a_case_without_its_mask_is_named(tmp_path):
    folder = fake_medseg2(tmp_path / "data", (1, 2))
    (folder / "rp_msk" / "2.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"case '2': rp_msk/2.nii.gz missing"):
        medseg2.adapt(folder)


def test_an_empty_folder_names_where_to_get_the_data(tmp_path):
    with pytest.raises(ValueError, match=r"no MedSeg 2 case found.*figshare"):
        medseg2.adapt(tmp_path)


def test_other_files_than_the_shipped_manifests_name_the_command(tmp_path):
    folder = fake_medseg2(tmp_path / "medseg2", (1, 2, 3, 5, 6, 8))
    with pytest.raises(ValueError, match="python -m deeplung_nb manifest medseg2") as caught:
        manifest.read_cohort("medseg2", tmp_path)
    assert str(folder) in str(caught.value)


def test_the_shipped_manifest_is_what_the_files_give(shared_data, tmp_path):
    for path in adapters.make_manifest("medseg2", shared_data("medseg2"), tmp_path):
        assert path.read_bytes() == (MANIFESTS / path.name).read_bytes()


def test_every_adapter_is_of_a_registered_set_and_an_unknown_one_is_named(tmp_path):
    assert set(adapters.names()) <= set(fetch.datasets())
    with pytest.raises(ValueError, match="data set 'nowhere': no adapter, expected one of"):
        adapters.make_manifest("nowhere", tmp_path, tmp_path)


def test_without_a_network_the_expected_path_is_named(tmp_path, monkeypatch):
    def no_network(*args, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    with pytest.raises(fetch.FetchError, match="no route to host") as caught:
        fetch.fetch("medseg2", tmp_path)
    assert str(tmp_path / "rp_im.zip") in str(caught.value)
    assert "10.6084/m9.figshare.13521509.v2" in str(caught.value)


def test_a_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    def wrong_hash(*args, **options):
        raise ValueError("hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", wrong_hash)
    with pytest.raises(fetch.FetchError, match="expected md5:54f82e3a9ac01bf6cc2300ca53d820ae"):
        fetch.fetch("medseg1", tmp_path)


def test_a_file_that_lies_there_is_not_taken_for_the_published_one(tmp_path):
    """Its hash is compared; there is no network to get the right one from."""
    (tmp_path / "tr_im.nii.gz").write_bytes(b"something else")
    with pytest.raises(fetch.FetchError, match=r"tr_im\.nii\.gz"):
        fetch.fetch("medseg1", tmp_path, progress=False)


@pytest.mark.parametrize(("name", "said"), [
    ("nowhere", "expected one of"), ("mosmed", "no direct download"),
])
def test_what_cannot_be_fetched_says_why(tmp_path, name, said):
    with pytest.raises(fetch.FetchError, match=said):
        fetch.fetch(name, tmp_path)


def local_archives(folder: Path, members: dict[str, bytes], monkeypatch) -> None:
    """Let each file of medseg2 be an archive on disk."""
    def retrieve(url, known_hash, fname, path, downloader):
        Path(path).mkdir(exist_ok=True)
        with zipfile.ZipFile(Path(path) / fname, "w") as archive:
            for name, content in members.items():
                archive.writestr(name.format(stem=Path(fname).stem), content)

    monkeypatch.setattr(pooch, "retrieve", retrieve)


@pytest.mark.parametrize("member", ["1.nii.gz", "{stem}/1.nii.gz"])
def test_archives_unpack_into_a_folder_of_their_name(tmp_path, monkeypatch, member):
    local_archives(tmp_path, {member: b"voxels", "__MACOSX/._1": b"x"}, monkeypatch)
    paths = fetch.fetch("medseg2", tmp_path)
    assert paths == [tmp_path / part / "1.nii.gz" for part in ("rp_im", "rp_lung_msk", "rp_msk")]
    assert paths[0].read_bytes() == b"voxels"
    assert not (tmp_path / "rp_im" / "__MACOSX").exists()


def test_an_archive_that_writes_elsewhere_is_refused(tmp_path, monkeypatch):
    local_archives(tmp_path, {"../outside.txt": b"x"}, monkeypatch)
    with pytest.raises(fetch.FetchError, match=r"'../outside.txt' leaves"):
        fetch.fetch("medseg2", tmp_path / "data")
    assert not (tmp_path / "outside.txt").exists()
