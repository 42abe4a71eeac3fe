"""Manifests: what is accepted, and that every fault is found, named and explained at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from deeplung_nb.cohorts import cases, manifest, schema
from deeplung_nb.cohorts.schema import ManifestError
from deeplung_nb.runs import Run
from deeplung_nb.runs.config import load_profile

MANIFESTS = Path(__file__).resolve().parent.parent / "data_manifests"


def row(case: str, **changes: str) -> dict[str, str]:
    """One valid row, as texts."""
    values = {
        "cohort": "site", "case_id": case, "patient_id": f"P-{case}", "role": "cv",
        "image": f"im/{case}.nii.gz", "mask": f"msk/{case}.nii.gz", "lung_mask": "",
        "image_sha256": "", "mask_sha256": "", "lung_mask_sha256": "",
        "mask_kind": "ggo+high_opacity", "protocol": "non-contrast", "scanner": "Aquilion ONE",
        "centre": "A", "n_slices": "40", "slice_gap_mm": "1.25", "exclude": "0",
        "exclude_reason": "",
    }
    return {**values, **changes}


@pytest.fixture
def write(tmp_path):
    """Write rows as a manifest CSV (and an empty-ish file for each named path)."""
    def _write(*rows: dict[str, str], drop: tuple[str, ...] = ()) -> Path:
        csv = tmp_path / "site.csv"
        pd.DataFrame(rows).drop(columns=list(drop)).to_csv(csv, index=False)
        return csv
    return _write


@pytest.fixture
def data(tmp_path):
    """A data folder with the files of cases a and b."""
    folder = tmp_path / "data"
    for case in "ab":
        for part in ("im", "msk"):
            path = folder / part / f"{case}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{part} {case}".encode())
    return folder


def faults_of(csv: Path, data: Path | None = None, **options) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        manifest.read_manifest(csv, data, **options)
    return caught.value.faults


def test_a_valid_manifest_gives_typed_columns_and_paths(write, data):
    digest = hashlib.sha256(b"im a").hexdigest()
    cohort = manifest.read_manifest(write(row("a", image_sha256=digest, age="61"),
                                          row("b", role="external")), data)
    assert cohort.name == "site"
    assert cohort.frame.n_slices.tolist() == [40, 40]
    assert cohort.frame.exclude.tolist() == [False, False]
    assert cohort.frame.age.isna().tolist() == [False, True]
    assert cohort.image_path("a") == data / "im" / "a.nii.gz"
    assert cohort.mask_path("b") == data / "msk" / "b.nii.gz"
    assert cohort.lung_mask_path("a") is None
    assert cohort.cases("external").case_id.tolist() == ["b"]


def test_ids_that_look_like_numbers_stay_texts(write):
    cohort = manifest.read_manifest(write(row("007"), row("1")))
    assert cohort.frame.case_id.tolist() == ["007", "1"]
    assert cohort.case("007").patient_id == "P-007"


def test_all_faults_come_in_one_error(write, data):
    csv = write(
        row("a", role="training", mask_kind="lesions", image_sha256="0" * 64),
        row("b", protocol="contrasted", exclude="1"),
        row("b", image="../b.nii.gz", mask="msk/none.nii.gz"),
        drop=("centre",),
    )
    with pytest.raises(ManifestError) as caught:
        manifest.read_manifest(csv, data)
    text = str(caught.value)
    for expected in (
        "site.csv", "'centre' is missing", "role is 'training', expected cv or external",
        "mask_kind is 'lesions'", "protocol is 'contrasted'", "exclude_reason is empty",
        "case_id 'b' appears 2 times", "'../b.nii.gz', which leaves the data folder",
        "none.nii.gz is missing", "has SHA-256",
    ):
        assert expected in text
    assert len(caught.value.faults) == 9


@pytest.mark.parametrize(("changes", "said"), [
    ({"role": ""}, "role is empty, expected cv or external"),
    ({"n_slices": "forty"}, "n_slices is 'forty', expected a whole number from 1 to 5000"),
    ({"n_slices": "40.5"}, "n_slices is '40.5'"),
    ({"slice_gap_mm": "-1"}, "slice_gap_mm is '-1', expected a number from 0.1 to 50"),
    ({"exclude": "yes"}, "exclude is 'yes', expected 0 or 1"),
    ({"exclude_reason": "motion"}, "exclude is 0 but exclude_reason is 'motion'"),
    ({"image": ""}, "image is empty"),
    ({"image_sha256": "abc"}, "image_sha256 is 'abc', expected 64 hexadecimal digits"),
    ({"case_id": "a b"}, "case_id is 'a b'"),
    ({"sex": "m"}, "sex is 'm', expected female or male"),
    ({"age": "610"}, "age is '610'"),
    ({"protocl": "contrast"}, "column 'protocl' is unknown"),
])
def test_one_fault_is_named_with_value_and_expectation(write, changes, said):
    faults = faults_of(write(row("a", **changes)))
    assert len(faults) == 1
    assert said in faults[0]


@pytest.mark.parametrize("name", schema.COLUMNS)
def test_a_missing_column_is_named(write, name):
    assert any(f"column {name!r} is missing" in fault
               for fault in faults_of(write(row("a"), drop=(name,))))


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.nii.gz", "im/../../a.nii.gz", "C:/a.nii.gz",
                                  "im\\..\\..\\a.nii.gz"])
def test_a_path_outside_the_data_folder_is_refused_without_looking(write, path):
    (fault,) = faults_of(write(row("a", image=path)))
    assert "leaves the data folder" in fault


def test_a_link_out_of_the_data_folder_is_refused(write, data, tmp_path):
    (tmp_path / "elsewhere.nii.gz").write_bytes(b"x")
    (data / "im" / "a.nii.gz").unlink()
    (data / "im" / "a.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    (fault,) = faults_of(write(row("a")), data)
    assert "leaves the data folder" in fault


def test_a_changed_file_is_found_and_the_remedy_named(write, data):
    csv = write(row("a", mask_sha256="f" * 64))
    (fault,) = faults_of(csv, data, remake="python -m deeplung_nb manifest site FOLDER")
    assert "case 'a'" in fault
    assert "expected " + "f" * 64 in fault
    assert "python -m deeplung_nb manifest site FOLDER" in fault
    assert len(manifest.read_manifest(csv, data, verify=False)) == 1


def test_one_person_may_not_be_in_both_roles(write):
    rows = [row("a", patient_id="X"), row("b", patient_id="X", role="external")]
    (fault,) = faults_of(write(*rows))
    assert "patient 'X'" in fault
    assert "a (cv), b (external)" in fault
    rows[1].update(exclude="1", exclude_reason="also in cv")
    assert len(manifest.read_manifest(write(*rows))) == 1


def test_one_person_may_not_be_in_both_roles_of_two_cohorts(write):
    training = manifest.read_manifest(write(row("a"), row("b")))
    external = manifest.read_manifest(write(
        row("a", role="external", cohort="other"),
        row("c", role="external", cohort="other"),
    ))
    with pytest.raises(ManifestError, match="'P-a'") as caught:
        manifest.check_apart([training, external])
    assert caught.value.faults[0].count("/a (") == 2
    assert len(caught.value.faults) == 1
    manifest.check_apart([training])


def test_one_ct_may_not_train_and_test_under_two_names(write):
    same = "b" * 64
    training = manifest.read_manifest(write(row("a", image_sha256=same), row("b")))
    external = manifest.read_manifest(write(
        row("q", role="external", cohort="other", patient_id="somebody", image_sha256=same)))
    with pytest.raises(ManifestError, match="image_sha256 'bbb") as caught:
        manifest.check_apart([training, external])
    assert "/a (cv)" in caught.value.faults[0]
    assert "/q (external)" in caught.value.faults[0]


def test_hashes_that_agreed_in_one_cohort_say_nothing_of_another(tmp_path):
    run = Run(tmp_path, load_profile("quick"), None)
    assert not cases._verified(run, "one")
    cases._remember_verified(run, "one")
    assert cases._verified(run, "one")
    assert not cases._verified(run, "other")


def test_the_same_scan_twice_is_refused(write):
    same = "a" * 64
    faults = faults_of(write(row("a", image_sha256=same), row("b", image_sha256=same)))
    assert "each case has its own CT" in faults[0]


@pytest.mark.parametrize("value", ["1.2.840.113619.2.55.3", "20200312", "2020-03-12", "12.03.2020"])
def test_dates_and_dicom_identifiers_are_refused(write, value):
    faults = faults_of(write(row("a", patient_id=value), row("b", extra_note=f"scan of {value}")))
    assert sum("looks like a date or a DICOM identifier" in fault for fault in faults) == 2


def test_columns_with_a_known_prefix_are_carried_along(write):
    cohort = manifest.read_manifest(write(row("a", ph_seed="20200312", extra_ward="3")))
    assert cohort.frame.ph_seed.tolist() == ["20200312"]
    assert "extra_ward" in cohort.frame


def test_missing_and_empty_manifests_say_so(tmp_path, write):
    assert "is missing" in faults_of(tmp_path / "none.csv")[0]
    csv = write(row("a"))
    csv.write_text(csv.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert "there is no row" in faults_of(csv)[0]


def test_flow_counts_every_case_once(write):
    cohort = manifest.read_manifest(write(
        row("a"), row("b", patient_id="P-a"), row("c", role="external"),
        row("d", exclude="1", exclude_reason="motion"),
        row("e", exclude="1", exclude_reason="motion"),
    ))
    flow = cohort.flow().set_index("step")
    assert flow.n_cases.to_dict() == {"assessed": 5, "excluded: motion": 2, "included": 3, "cv": 2,
                                      "external": 1}
    assert flow.n_patients["included"] == 2
    assert repr(cohort) == ("Cohort 'site': 3 cases of 2 patients (2 cv, 1 external), 2 excluded; "
                            "data: no folder given")


def test_asking_for_files_without_a_folder_names_the_remedy(write):
    cohort = manifest.read_manifest(write(row("a")))
    with pytest.raises(ValueError, match="DEEPLUNG_DATA"):
        cohort.image_path("a")
    with pytest.raises(ValueError, match="'z' is not in cohort 'site'"):
        cohort.case("z")


def test_written_manifests_read_back_the_same(write, tmp_path):
    cohort = manifest.read_manifest(write(row("a", age="61.5", smoking="never"),
                                          row("b", exclude="1", exclude_reason="motion")))
    manifest.write_manifest(cohort.frame, tmp_path / "again.csv")
    again = manifest.read_manifest(tmp_path / "again.csv")
    pd.testing.assert_frame_equal(cohort.frame[again.frame.columns], again.frame)
    first = (tmp_path / "again.csv").read_bytes()
    manifest.write_manifest(again.frame, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == first


def test_a_faulty_table_is_not_written(write, tmp_path):
    frame = manifest.read_manifest(write(row("a"))).frame.assign(role="training")
    with pytest.raises(ManifestError):
        manifest.write_manifest(frame, tmp_path / "bad.csv")
    assert not (tmp_path / "bad.csv").exists()


def test_the_readme_has_the_column_dictionary_of_the_schema():
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    assert schema.column_dictionary() in readme, (
        "data_manifests/README.md is behind the schema: run "
        "schema.write_dictionary('data_manifests/README.md')"
    )


def test_the_dictionary_is_put_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    begin, end = schema.DICTIONARY_MARKERS
    readme.write_text(f"before\n{begin}\nan old table\n{end}\nafter\n", encoding="utf-8")
    schema.write_dictionary(readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "an old table" not in text
    assert "| `case_id` | yes |" in text


@pytest.mark.parametrize("name", [
    name for name, entry in manifest.read_registry().items()
    if (MANIFESTS / entry.get("manifest", "none")).is_file()
])
def test_a_registered_cohort_has_what_it_expects(name):
    entry = manifest.read_registry()[name]
    cohort = manifest.read_cohort(name)
    assert cohort.name == name
    if "expected" in entry:
        used = cohort.included
        counts = {"cases": len(used), "patients": used.patient_id.nunique(),
                  "cv": len(cohort.cases("cv")), "external": len(cohort.cases("external"))}
        assert counts == entry["expected"]


def test_an_unknown_cohort_names_those_that_can_be_read():
    with pytest.raises(ValueError, match="medseg2"):
        manifest.read_cohort("medseg3")


def test_effusion_of_medseg2_counts_as_high_opacity():
    assert manifest.read_cohort("medseg2").mask_codes == {1: 1, 2: 2, 3: 2}


def test_the_shipped_hashes_are_those_of_the_published_files(shared_data):
    cohort = manifest.read_cohort("medseg2", shared_data("medseg2"))
    assert cohort.image_path("3").is_file()


def test_one_file_for_two_things_is_named(write):
    faults = faults_of(write(row("a", mask="im/a.nii.gz")))
    assert len(faults) == 1
    assert "image and mask are the same file 'im/a.nii.gz', expected two" in faults[0]


@pytest.mark.parametrize(("column", "bad"), [
    ("case_id", "no/name"), ("patient_id", "Jane Doe"), ("cohort", "a b"),
    ("image_sha256", "abc"), ("mask_sha256", "G" * 64), ("lung_mask_sha256", "1" * 63)])
def test_a_text_of_another_form_is_refused(write, column, bad):
    faults = faults_of(write(row("a", **{column: bad})))
    assert any(column in fault and bad in fault for fault in faults)
