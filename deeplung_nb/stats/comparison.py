"""Two readers on the same cases: every statistic of their pairs, side by side.

A comparison holds results of the other modules and adds no number of its own: what a table, a
figure or a sentence says of it is a field of one of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.labels import NO_AMOUNTS, counted
from deeplung_nb.measurements.columns import with_patients
from deeplung_nb.stats import agreement, concordance, correlation, paired, robust
from deeplung_nb.stats.description import Description, describe
from deeplung_nb.stats.detection import DetectionAccuracy, accuracy
from deeplung_nb.stats.trend import Trend, proportional_bias

NAN = float("nan")
ALPHA = 0.05
"""Level of the tests that speak against constant limits."""
PLANS = ("auto", "constant", "ratio", "regression", "quantile")
"""Limits that a study can declare beforehand; `auto` leaves it to tests."""
FEWEST_RATIOS = 10
"""Pairs that both readers measured from which on limits of their ratio are worth reporting."""
FEWEST_BY_SIZE = 20
"""Pairs without a zero from which on `auto` takes limits by regression."""
INTERVALS = ("auto", "classical")
MOST_LEVERAGE = 0.5
"""Share of a coefficient's variance that one patient may make before it is said."""


class Median(NamedTuple):
    """Median of the differences, and its interval by order statistics."""

    value: float
    ci: tuple[float, float]


class Lead(NamedTuple):
    """The limits to report: in a table, a figure, a sentence, the same ones."""

    kind: str
    """`constant`, `ratio`, `regression` or `quantile`."""
    limits: agreement.BlandAltman
    planned: bool
    """Whether the study declared them beforehand."""
    note: str = ""
    """Where they are not what was planned, or don't fit: why."""


ROW = {
    "n": "limits.n", "n_patients": "n_patients", "independent": "independent",
    "n_zero": "limits.n_zero", "n_missing": "n_missing", "n_failed": "n_failed",
    "detected_both": "detection.both", "detected_reference_only": "detection.reference_only",
    "detected_test_only": "detection.test_only", "detected_neither": "detection.neither",
    "reference_median": "of_reference.median", "reference_q1": "of_reference.q1",
    "reference_q3": "of_reference.q3", "test_median": "of_test.median", "test_q1": "of_test.q1",
    "test_q3": "of_test.q3", "reference_mean": "of_reference.mean",
    "reference_sd": "of_reference.sd", "test_mean": "of_test.mean", "test_sd": "of_test.sd",
    "intervals": "ci",
    "bias": "limits.bias", "bias_": "limits.bias_ci",
    "median_difference": "median.value", "median_difference_": "median.ci",
    "hodges_lehmann_all": "every.hodges_lehmann", "hodges_lehmann_all_": "every.hodges_lehmann_ci",
    "spearman": "spearman.r", "spearman_": "spearman.ci", "spearman_p": "spearman.p_value",
    "ccc": "ccc.ccc", "ccc_": "ccc.ccc_ci",
    "ccc_rank": "ranks.coefficient", "ccc_rank_": "ranks.ci",
    "limits": "lead.kind", "limit_lower": "lead.limits.loa_lower",
    "limit_upper": "lead.limits.loa_upper", "limit_lower_ci_": "lead.limits.loa_lower_ci",
    "limit_upper_ci_": "lead.limits.loa_upper_ci",
    "limit_percent_outside": "lead.limits.percent_outside", "limit_n": "lead.limits.n",
    "sd": "limits.sd", "loa_lower": "limits.loa_lower", "loa_upper": "limits.loa_upper",
    "loa_lower_ci_": "limits.loa_lower_ci", "loa_upper_ci_": "limits.loa_upper_ci",
    "percent_outside": "limits.percent_outside",
    "ratio": "ratio.bias", "ratio_": "ratio.bias_ci",
    "ratio_loa_lower": "ratio.loa_lower", "ratio_loa_upper": "ratio.loa_upper",
    "ratio_loa_lower_ci_": "ratio.loa_lower_ci", "ratio_loa_upper_ci_": "ratio.loa_upper_ci",
    "ratio_percent_outside": "ratio.percent_outside", "ratio_n": "ratio.n",
    "quantile_lower": "quantiles.loa_lower", "quantile_upper": "quantiles.loa_upper",
    "quantile_lower_ci_": "quantiles.loa_lower_ci", "quantile_upper_ci_": "quantiles.loa_upper_ci",
    "regression_bias_intercept": "regression.bias_line.0",
    "regression_bias_slope": "regression.bias_line.1",
    "regression_sd_intercept": "regression.sd_line.0",
    "regression_sd_slope": "regression.sd_line.1",
    "slope": "slope.slope", "slope_": "slope.slope_ci", "slope_p": "slope.p_value",
    "heteroscedasticity_p": "limits.heteroscedasticity_p", "shapiro_p": "limits.shapiro_p",
    "pearson": "pearson.r", "pearson_": "pearson.ci",
    "signed_rank_p": "rank.p_value", "signed_rank_method": "rank.method",
    "signed_rank_zeros": "rank.zeros", "rank_biserial": "rank.rank_biserial",
    "rank_biserial_": "rank.rank_biserial_ci", "hodges_lehmann": "rank.hodges_lehmann",
    "hodges_lehmann_": "rank.hodges_lehmann_ci", "flags": "flags", "reasons": "reasons",
}
"""Column of a row -> where its value stands; of an interval, `name_`, both ends."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Result of `compare`; differences are test - reference."""

    reference: str
    test: str
    n_missing: int
    n_failed: int
    n_patients: int
    """As many as pairs where nothing is known of patients."""
    ci: str
    plan: str
    """Of `PLANS`."""
    of_reference: Description
    of_test: Description
    detection: DetectionAccuracy | None
    """None of what is no amount (`labels.NO_AMOUNTS`) or has a negative reading: 0 HU, or no
    change, is not nothing there."""
    limits: agreement.BlandAltman
    """Constant ones, of the difference."""
    ratio: agreement.BlandAltman | None
    """Of test / reference, of the pairs that both measured; None where a reading is negative."""
    quantiles: agreement.BlandAltman
    regression: agreement.BlandAltman
    slope: Trend
    median: Median
    rank: paired.SignedRank
    """Without the zero differences."""
    every: paired.SignedRank
    """With them, as Pratt ranks them."""
    spearman: correlation.Correlation
    pearson: correlation.Correlation
    ccc: concordance.Concordance
    ranks: concordance.RankConcordance
    leverage: float
    """As `robust.studentized`."""

    def __repr__(self) -> str:
        return (f"{self.test} against {self.reference}: {counted(self.limits.n, 'pair')} of "
                f"{counted(self.n_patients, 'patient')}, bias {self.limits.bias:.6g}")

    @property
    def independent(self) -> str:
        """What intervals and tests take as independent: `patients` or `pairs`."""
        return "patients" if self.limits.by_patients else "pairs"

    @property
    def against(self) -> dict[str, float]:
        """Tests that speak against constant limits -> their p."""
        tests = {"slope": self.slope.p_value, "spread": self.limits.heteroscedasticity_p,
                 "normality": self.limits.shapiro_p}
        return {name: p for name, p in tests.items() if p < ALPHA}

    def _of_kind(self, kind: str) -> agreement.BlandAltman | None:
        """Limits of a kind, where these pairs can carry them: they are finite, of ten ratios or
        more, and quantiles have intervals."""
        found = {"constant": self.limits, "ratio": self.ratio, "regression": self.regression,
                 "quantile": self.quantiles}[kind]
        if found is None or not np.isfinite([found.loa_lower, found.loa_upper]).all():
            return None
        if kind == "ratio" and found.n < FEWEST_RATIOS:
            return None
        bounded = np.isfinite([found.loa_lower_ci, found.loa_upper_ci]).all()
        return found if bounded or kind != "quantile" else None

    @cached_property
    def lead(self) -> Lead:
        """The limits to report.

        Those that the study planned; where the pairs can't carry these, constant ones. `auto` takes
        constant limits where no test speaks against them (normal differences, as wide for large
        readings as for small); else those of the ratio, unless ratios are not normal and the study
        bounds quantiles; without ratios those by regression where the differences change with
        size, or quantiles; and constant ones where nothing else can be carried.
        """
        if self.plan != "auto":
            planned = self._of_kind(self.plan)
            if planned is not None:
                return Lead(self.plan, planned, planned=True)
            return Lead("constant", self.limits, planned=False, note=(
                f"these pairs can't carry the planned {self.plan} limits" if self.plan != "constant"
                else ""))
        large = self.limits.n > agreement.MOST_FOR_SHAPIRO  # nobody tested
        if not self.against and not large:
            return Lead("constant", self.limits, planned=False)
        ratio, by_size, quantiles = map(self._of_kind, ("ratio", "regression", "quantile"))
        if quantiles is not None and (large or (ratio is not None and ratio.shapiro_p < ALPHA)):
            return Lead("quantile", quantiles, planned=False)
        if ratio is not None:
            return Lead("ratio", ratio, planned=False)
        if by_size is not None and self.limits.n - self.limits.n_zero >= FEWEST_BY_SIZE \
                and {"slope", "spread"} & self.against.keys():
            return Lead("regression", by_size, planned=False)
        if quantiles is not None:
            return Lead("quantile", quantiles, planned=False)
        return Lead("constant", self.limits, planned=False,
                    note="constant limits don't fit, and pairs are too few for others")

    @property
    def flags(self) -> str:
        """What to mind."""
        found, limits = [], self.limits
        whole = f"{counted(limits.n, 'pair')} of {counted(self.n_patients, 'patient')}"
        if limits.by_patients:
            found.append(f"{whole}: by patients")
        elif self.n_patients < limits.n:
            found.append(f"{whole}, taken as independent")
        if "slope" in self.against:
            found.append("proportional bias")
        if "spread" in self.against:
            grows = self.regression.sd_line[1] > 0
            found.append(f"spread {'grows' if grows else 'shrinks'} with size")
        if "normality" in self.against:
            found.append("differences not normal")
        lead = self.lead
        if lead.limits.n and np.isfinite(lead.limits.percent_outside):
            outside = round(lead.limits.percent_outside * lead.limits.n / 100)
            if stats.binomtest(outside, lead.limits.n, 0.05).pvalue < 0.01:
                found.append(f"{lead.limits.percent_outside:.0f} % outside the limits, expected 5")
        if lead.kind == "ratio" and lead.limits.shapiro_p < ALPHA:
            found.append("ratios not normal")
        if lead.note:
            found.append(lead.note)
        if limits.n_zero > limits.n / 3:
            found.append("many zeros")
        if self.leverage > MOST_LEVERAGE:
            found.append("one patient decides CCC and Pearson's r")
        return "; ".join(found)

    @cached_property
    def reasons(self) -> str:
        """Why fields are empty, or to be taken with reserve."""
        parts = (self.limits, self.spearman, self.ccc, self.rank, self.slope, self.ranks)
        return "; ".join(sorted({reason for part in parts for reason in part.reason.split("; ")
                                 if reason}))

    def row(self) -> dict[str, Any]:
        """One flat row: the columns of `ROW`, an interval as two, `_lower` and `_upper`."""
        found: dict[str, Any] = {"reference": self.reference, "test": self.test}
        for column, path in ROW.items():
            value: Any = self
            for part in path.split("."):
                value = value[int(part)] if part.isdigit() else getattr(value, part, None)
            if column.endswith("_"):
                found[f"{column}lower"], found[f"{column}upper"] = value or (NAN, NAN)
            else:
                found[column] = NAN if value is None else value
        return found


def _patients(pairs: pd.DataFrame, cluster: Hashable | None) -> Any:
    """Who each pair is of; None: nobody says, or nobody is to mind."""
    if cluster is None:
        return None
    if cluster == "auto":
        pairs = with_patients(pairs)
    name = "patient_id" if cluster == "auto" else cluster
    if name not in pairs:
        if cluster == "auto":
            return None
        raise ValueError(f"cluster={cluster!r}: no such column; the pairs have "
                         f"{', '.join(map(str, pairs.columns))}")
    nameless = pairs[name].isna()
    if nameless.all() and cluster == "auto":
        return None
    if nameless.any():
        raise ValueError(f"{name}: empty in {int(nameless.sum())} of {len(pairs)} pairs (first "
                         f"at position {int(np.flatnonzero(nameless)[0])}), so nobody can tell "
                         "which pairs belong together. Fill it in, leave the pairs out, or say "
                         "cluster=None")
    return pairs[name].to_numpy()


def compare(pairs: pd.DataFrame, *, cluster: Hashable | None = "auto", ci: str = "auto",
            confidence: float = 0.95, missing: str = "raise", limits: str = "auto") -> Comparison:
    """Every agreement statistic of one table of pairs.

    Parameters
    ----------
    pairs
        A table of `measurements.pair`, or any with columns `reference` and `test`.
    cluster
        Column of who each pair is of; `auto`: `patient_id`, in any usual spelling, where there is
        one. Where a patient has several pairs, all intervals and tests take patients as
        independent. None: every pair as independent.
    ci
        Of Spearman, Pearson and CCC. `auto`: what holds with zeros and skew; `classical`:
        Bonett-Wright, Fisher and Lin, as other programs print, for normal readings of independent
        pairs.
    confidence, missing
        Of all intervals; `raise` on an empty reading, or `drop` and count.
    limits
        Which limits of agreement lead: what the study has declared before its data were seen, of
        `PLANS`; `auto`: as tests on these pairs say (`Comparison.lead`).

    Returns
    -------
    Comparison
        Results side by side, and what leads; `row()` makes one flat row of them.
    """
    if ci not in INTERVALS:
        raise ValueError(f"ci={ci!r}: expected one of {', '.join(INTERVALS)}")
    absent = [name for name in ("reference", "test") if name not in pairs]
    if absent:
        raise ValueError(f"pairs has no column {', '.join(absent)}: expected 'reference' and "
                         f"'test', as measurements.pair gives them; it has "
                         f"{', '.join(map(str, pairs.columns))}")
    if limits not in PLANS:
        raise ValueError(f"limits={limits!r}: expected one of {', '.join(PLANS)}")
    attrs = pairs.attrs
    both = pairs
    if missing == "drop":
        both = both.dropna(subset=["reference", "test"])
    a, b = (both[name].to_numpy(float) for name in ("reference", "test"))
    patients = _patients(both, cluster)
    given = {"cluster": patients, "confidence": confidence}
    constant = agreement.bland_altman(a, b, **given)
    classical = ci == "classical"
    if classical and constant.by_patients:
        raise ValueError("ci='classical' takes pairs as independent, and patients have several: "
                         "say cluster=None as well, or leave ci out")
    d = b - a
    amounts = attrs.get("value") not in NO_AMOUNTS and (
        not len(a) or min(a.min(), b.min()) >= 0)
    whose = with_patients(both)
    known = None
    if "patient_id" in whose:
        known = _patients(whose.dropna(subset=["patient_id"]), "auto")
    n_patients = constant.n_clusters if cluster is not None or known is None else (
        len(set(known)) + len(both) - len(known))
    return Comparison(
        attrs.get("reference", "reference"), attrs.get("test", "test"),
        len(pairs) - len(both) + attrs.get("n_unread", 0), attrs.get("n_failed", 0), n_patients, ci,
        limits, describe(a), describe(b),
        accuracy(a, b, **given) if amounts else None, constant,
        agreement.bland_altman(a, b, scale="ratio", **given) if amounts and len(a) else None,
        agreement.bland_altman(a, b, limits="quantile", **given),
        agreement.bland_altman(a, b, limits="regression", **given),
        proportional_bias(a, b, **given),
        Median(float(np.median(d)) if len(d) else NAN,
               robust.quantile_interval(d, 0.5, patients, confidence=confidence)),
        paired.wilcoxon_signed_rank(a, b, **given),
        paired.wilcoxon_signed_rank(a, b, zeros="pratt", **given),
        correlation.spearman(a, b, ci="bonett-wright" if classical else "auto", **given),
        correlation.pearson(a, b, ci="fisher" if classical else "auto", **given),
        concordance.concordance(a, b, ci="lin" if classical else "auto", **given),
        concordance.rank_concordance(a, b, **given),
        robust.studentized(a, b, **given).leverage)
