"""The simulated table of the paper's size: what it says that it matches, it matches."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb import measurements
from deeplung_nb.cohorts import rehearsal
from deeplung_nb.report import counts, figures, published
from deeplung_nb.reproduce import run_notebook
from deeplung_nb.runs import open_run
from deeplung_nb.runs.resources import shipped
from deeplung_nb.stats import paired


@pytest.fixture(scope="module")
def simulated():
    return rehearsal.simulate()


@pytest.fixture(scope="module")
def compared(simulated):
    table = published.compare(None, published.measure(simulated.readings))
    return table[table.measured.notna()].set_index("id")


def test_every_printed_quartile_is_met(compared):
    rows = compared[compared.index.str.contains(r"^s3\.[12]\.volume")]
    assert len(rows) == 24
    np.testing.assert_allclose(rows.measured, rows.value, rtol=1e-9)


def test_no_two_readings_are_equal_but_zeros_and_quartiles(simulated):
    """Cases that differ by exactly nothing would betray two curves of one formula."""
    for role in ("cv", "external"):
        for structure in ("ggo", "high_opacity"):
            pair = measurements.pair(simulated.readings, "expert", "model", structure, role=role)
            found = pair[(pair.reference > 0) & (pair.test > 0)]
            assert (found.reference != found.test).all()
            # Growth from one to the next is not a smooth curve's.
            steps = np.diff(np.log(np.sort(found.reference)))
            assert np.abs(np.diff(steps)).mean() > 0.3 * steps.mean()


def test_correlations_are_met_but_for_the_one_out_of_reach(compared):
    rows = compared[compared.index.str.contains(r"^s3\.[12]\.correlation\.")]
    out_of_reach = "s3.2.correlation.external.high_opacity"
    met = rows.drop(out_of_reach)
    assert len(met) == 3
    np.testing.assert_allclose(met.measured, met.value, atol=1e-3)
    assert rows.measured[out_of_reach] == pytest.approx(0.978, abs=1e-3)


def test_no_coupling_reaches_the_printed_correlation_of_external_high_opacity():
    """51 zeros and 50 zeros at best: the highest rho of any such pair of samples."""
    expert = np.concatenate([np.zeros(51), np.arange(1, 17)])
    machine = np.concatenate([np.zeros(50), np.arange(1, 18)])
    assert stats.spearmanr(expert, machine).statistic < 0.98


def test_table_2_is_met(simulated, compared):
    rows = compared[compared.index.str.contains(r"^table2|^s2\.1\.n_(?:lesion_)?slices")]
    assert len(rows) >= 6
    assert (rows.measured == rows.value).all()
    slices = counts.count_slices(simulated.readings).set_index("role").slices_both
    assert slices.to_dict() == {"cv": 6720, "external": 512}
    expert = simulated.readings.query("reader == 'expert'")
    assert (expert.slices_with <= expert.n_slices).all()
    assert ((expert.slices_with > 0) == (expert.volume_ml > 0)).mean() > 0.9


def test_table_1_is_met(simulated):
    table = counts.count_characteristics(simulated.patients).query("role == 'cv'")
    found = table.set_index("characteristic")
    assert found.loc["Age, years", ["mean", "sd"]].tolist() == pytest.approx([61, 16])
    assert found.n[["Men", "Current smoker", "Contrast-enhanced", "ECG-gated", "aquilion_one",
                    "open access"]].tolist() == [123, 22, 30, 35, 73, 10]


def test_table_1_has_its_counterparts_but_for_the_papers_own_scanners(simulated):
    characteristics = counts.count_characteristics(simulated.patients)
    found = published.measure(simulated.readings, characteristics=characteristics)
    table = published.compare(None, found).set_index("id")
    rows = table[table.index.str.startswith("table1.")]
    assert rows.index[rows.measured.isna()].str.startswith("table1.scanner.").all()
    known = rows[rows.measured.notna() & ~rows.index.str.contains("percent|n.baseline")]
    assert len(known) == 12
    np.testing.assert_allclose(known.measured, known.value, atol=0.06)
    # Ten open-access scans have no clinical data; percents are of those known.
    assert rows.measured["table1.men.percent"] == pytest.approx(100 * 123 / 187)


def test_phantoms_are_called_phantoms_and_quartiles_by_their_type(simulated):
    found = published.measure(simulated.readings)
    words = published.compare(None, found, synthetic=True).set_index("id").comparability
    assert not words.str.contains("patients").any()
    assert words["s3.1.volume.cv.ggo.expert.q1"] == \
        "same statistic, phantoms; quartile of type 6, as in SPSS"


def test_binary_masks_hold_no_high_opacity(simulated):
    expert = simulated.readings.query("centre == 'mosmed' and reader == 'expert'")
    assert (expert.query("structure == 'high_opacity'").volume_ml == 0).all()


def test_the_same_seed_gives_the_same_table_and_another_another(simulated):
    again, other = rehearsal.simulate().readings, rehearsal.simulate(1).readings
    pd.testing.assert_frame_equal(again, simulated.readings)
    assert not other.volume_ml.equals(again.volume_ml)


def test_every_row_says_that_it_is_simulated(simulated):
    assert (simulated.readings.note == "simulated").all()
    assert simulated.readings.cohort.str.startswith("rehearsal_").all()
    assert simulated.readings.dice.isna().all()


def test_the_printed_p_value_of_external_ground_glass_is_not_to_be_had():
    for seed in range(5):
        pair = measurements.pair(rehearsal.simulate(seed).readings, "expert", "model", "ggo",
                                 role="external")
        assert paired.wilcoxon_signed_rank(pair.reference, pair.test).p_value < 1e-4


@pytest.mark.nightly
def test_the_notebook_runs_in_a_folder_of_its_own_and_says_simulated(tmp_path):
    run = open_run("rehearsal", results=tmp_path)
    run_notebook(shipped("notebooks") / "E2_rehearsal.ipynb", run)
    assert run.synthetic
    assert measurements.read(run.measurements_csv).case_id.nunique() == 264
    for name in figures.AGREEMENT_NAMES.values():
        svg = (run.folder / "figures" / f"{name}.svg").read_text()
        assert "synthetic cohort" in svg
    for name in ("table1_characteristics", "table2_slices", "agreement", "published"):
        assert "ynthetic cohort" in (run.folder / "tables" / f"{name}.html").read_text()
