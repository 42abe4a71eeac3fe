"""What the notebooks' text says of their numbers is what their cells compute."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from deeplung_nb.cohorts import rehearsal
from deeplung_nb.network import deeplung
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.resources import shipped
from deeplung_nb.stats import agreement, paired

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _from_the_recorded_run(monkeypatch):
    monkeypatch.setenv("DEEPLUNG_RUN", str(ROOT / "results" / "example"))


def cells(number):
    place, = shipped("notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(place, as_version=4).cells


def text(number):
    return " ".join(" ".join(cell.source.split()) for cell in cells(number)
                    if cell.cell_type == "markdown")


def number_in(number, pattern):
    """The one number in the text at the place of the group."""
    found = re.findall(pattern, text(number))
    assert len(found) == 1, f"{number}: {pattern!r} stands {len(found)} times in the text"
    return float(found[0].replace(",", ""))


def names_after(number, *parts):
    """The names that the cells with these parts leave, run one after the other."""
    names = {}
    for part in parts:
        source, = (c.source for c in cells(number) if c.cell_type == "code" and part in c.source)
        exec(source, names)
    return names


def test_03_the_loss_is_as_blind_as_the_text_says():
    names = names_after("03", "truth = torch.zeros")
    found = {name: float(names["rmi_lower_bound"](names["truth"], mask))
             for name, mask in names["rows"].items()}
    assert "RMI gives the inverted mask *the same value* as the noisy one" in text("03")
    assert found["inverted"] == pytest.approx(found["noisy"], abs=1e-6)
    assert found["perfect"] < found["noisy"]


@pytest.mark.parametrize(("profile", "part"), [("paper", 8), ("quick", 4), ("public", 4)])
def test_03_the_main_branch_gives_up_as_much_as_the_text_says(profile, part):
    assert "an eighth of the picture's in the profile `paper`, a fourth in `quick` and `public`" \
        in text("03")
    network = load_profile(profile).network
    side = network.image_size // part
    head = next(row for row in deeplung.layer_table(deeplung.DeepLungNet(network))
                if row["part"] == "main_head")
    assert head["output_shape"] == f"3x{side}x{side}"


def test_07_limits_by_quantiles_have_open_ends_below_that_many_cases():
    least = int(number_in("07", r"open ends below (\d+) cases"))
    rng = np.random.default_rng(0)
    for n, closed in ((least - 1, False), (least, True)):
        expert = rng.lognormal(4, 1, n)
        found = agreement.bland_altman(expert, expert + rng.normal(0, 9, n), limits="quantile")
        ends = (*found.loa_lower_ci, *found.loa_upper_ci)
        assert bool(np.isfinite(ends).all()) == closed, n


def test_09_the_papers_times_contradict_each_other_as_the_text_says():
    printed = pd.read_csv(ROOT / "data_manifests" / "published.csv", dtype=str)
    values = set(printed.value)
    few = number_in("09", r"Table 4 \(([\d.]+) s for 16 slices")
    many = number_in("09", r"on a CPU \((\d+) s\)")
    assert {f"{few:g}", f"{many:g}"} <= values
    assert number_in("09", r"so (\d+) s for 120") == round(few * 120 / 16)


def test_11_the_changes_are_those_that_the_solutions_name():
    names = names_after("11", "import numpy as np", "rng = np.random.default_rng(11)",
                        'twice["log"]', "after = volume", "ratio = agreement")
    in_ml = names["followup"].repeatability(names["twice"], "patient", "volume_ml")
    factor = names["smallest"]
    assert in_ml.grows_p < 0.05 < factor.grows_p
    solved = (shipped("notebooks") / "exercises.py").read_text(encoding="utf-8")
    said, = re.findall(r"By the (\d+) mL it is none, by the factor of ([\d.]+), or ([\d.]+) to "
                       r"be safe", solved)
    ml, least, safe = map(float, said)
    assert round(in_ml.coefficient) == ml
    assert round(np.exp(factor.coefficient), 2) == least
    assert round(np.exp(factor.coefficient_ci[1]), 2) == safe
    assert least < safe < 55 / 40 < 1 + ml / 40
    within = names["judged"].assign(before=names["before"]).verdict == "within error"
    assert within.sum() > 10


def test_12_lesions_and_patients_conclude_what_the_text_says():
    names = names_after("12", "import numpy as np", "patient = np.repeat", "as_usual = summary")
    usual, patients = names["as_usual"], names["as_it_is"]
    assert usual["bias_lower"] > 0
    assert patients["bias_lower"] < 0 < patients["bias_upper"]
    assert patients["limits"] == "ratio"
    wide = [one["ccc_upper"] - one["ccc_lower"] for one in (usual, patients)]
    assert wide[0] < wide[1]
    wide = [row["limit_upper_ci_upper"] - row["limit_upper_ci_lower"] for row in (usual, patients)]
    assert "their usual interval is a third as wide" in text("12")
    assert 0.25 < wide[0] / wide[1] < 0.42


def test_e1_the_wrong_test_sees_nothing_of_five_per_cent():
    rng = np.random.default_rng(0)
    expert = rng.lognormal(5, 1, 60)
    low = 0.95 * expert * rng.normal(1, 0.03, 60)
    source = (shipped("notebooks") / "exercises.py").read_text(encoding="utf-8")
    for line in ("rng = np.random.default_rng(0)", "expert = rng.lognormal(5, 1, 60)",
                 "low = 0.95 * expert * rng.normal(1, 0.03, 60)"):
        assert line in source
    assert paired.wilcoxon_signed_rank(expert, low).p_value < 0.001
    assert paired.mann_whitney(expert, low).p_value > 0.5


def test_e2_two_kinds_of_quartile_differ_by_what_the_text_says():
    table = rehearsal.simulate().readings
    spss, here = (number_in("E2", pattern) for pattern in (
        r"gives ([\d.]+) mL where", r"this table says ([\d.]+),"))
    found = []
    for _, group in table.groupby(["role", "reader", "structure"]):
        values = group.volume_ml.to_numpy()
        found += [(round(float(np.quantile(values, q, method="weibull")), 1),
                   round(float(np.quantile(values, q)), 1)) for q in (0.25, 0.5, 0.75)]
    assert (spss, here) in found
