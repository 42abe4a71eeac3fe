"""The Methods and Results sentences of an agreement analysis."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deeplung_nb import __version__
from deeplung_nb.labels import VALUES
from deeplung_nb.measurements.columns import with_patients
from deeplung_nb.report.numbers import number, p_words
from deeplung_nb.stats import agreement, equivalence
from deeplung_nb.stats.comparison import MOST_LEVERAGE, Comparison, compare
from deeplung_nb.stats.equivalence import Equivalence

TREND = ("Proportional bias was tested by regression of the difference on the mean of the pair, "
         "with weights from the spread at each size")
PACKAGES = ("numpy", "scipy", "statsmodels")


def _name(reader: str) -> str:
    """What a sentence calls a reader of a table."""
    return {"expert": "the expert", "model": "the network"}.get(reader, f"reader “{reader}”")


def _number(value: float) -> str:
    return "not estimable" if np.isnan(value) else number(value, most_decimals=6)


def _interval(ends: tuple[float, float], level: str) -> str:
    if np.isnan(ends).any():
        return f"{level} CI not estimable"
    below, above = ("no bound" if np.isinf(end) else _number(end) for end in ends)
    return f"{level} CI {below} to {above}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def report_text(
    pairs: pd.DataFrame, *, reference: str | None = None, test: str | None = None,
    quantity: str | None = None, unit: str | None = None, margin: float | None = None,
    confidence: float = 0.95, cluster: str | None = "auto", what: str = "case",
    limits: str = "auto",
) -> str:
    """Methods and Results of the agreement of two readers, as sentences for a paper.

    Everything that was done is said: the sign of the difference, the kind of interval, zeros, the
    form of the signed-rank test, software versions. What can't be estimated is said to be so.

    Parameters
    ----------
    pairs
        Columns `reference` and `test`, one row per case, as from `measurements.pair`.
    reference, test
        What to call the two readers; None: as the pairs' `attrs` name them, else the expert and the
        network.
    quantity, unit
        What was read, in which unit; None: as the pairs' `attrs` say, else volume in mL.
    cluster
        As `stats.comparison.compare`: by patients where one has several pairs.
    what
        What a row is: `case`, `scan`, `lesion`.
    margin
        An equivalence margin in that unit, declared before the data were seen; None: no test of
        equivalence, and no word of it.
    limits
        The kind of limits of agreement that was declared before the data were seen, as
        `stats.comparison.compare`; `auto`: as tests on these pairs say, and the text says so.

    Returns
    -------
    str
        Two paragraphs, `Methods.` and `Results.`

    Raises
    ------
    ValueError
        A column is absent, or a reading is empty.

    Examples
    --------
    >>> import pandas as pd
    >>> pairs = pd.DataFrame({"reference": [0, 4.0, 9, 20, 31], "test": [0, 5.0, 8, 24, 33]})
    >>> "bias of the network against the expert was 1.20 mL" in report_text(pairs)
    True
    """
    attrs = pairs.attrs
    value = str(attrs.get("value", "volume_ml"))
    of_value = VALUES.get(value, (value, ""))
    told = _Told.of(pairs, reference or _name(attrs.get("reference", "expert")),
                    test or _name(attrs.get("test", "model")),
                    of_value[0] if quantity is None else quantity,
                    of_value[1] if unit is None else unit, margin, confidence, cluster, what,
                    limits)
    methods = [*told.design(), *told.differences(), *told.kind_of_limits(), *told.the_rest()]
    results = [*told.detection(), *(told.agreement() if told.row["n"] else []),
               *(told.to_mind() if told.row["n"] else [])]
    # A sentence may begin with a reader's name.
    methods, results = ([text[0].upper() + text[1:] for text in part]
                        for part in (methods, results))
    return "Methods. " + " ".join(methods) + "\n\nResults. " + " ".join(results)


class _Told(NamedTuple):
    """What statistics found, and the words that readers and readings go by."""

    pairs: pd.DataFrame
    found: Comparison
    row: dict[str, Any]
    equal: Equivalence | None
    by_size: pd.DataFrame | None
    reference: str
    test: str
    quantity: str
    unit: str
    level: str
    what: str

    @classmethod
    def of(cls, pairs: pd.DataFrame, reference: str, test: str, quantity: str, unit: str,
           margin: float | None, confidence: float, cluster: str | None, what: str,
           limits: str) -> _Told:
        """Ask the statistics of all that the sentences need."""
        absent = [name for name in ("reference", "test") if name not in pairs]
        if absent:
            raise ValueError(f"pairs has no column {', '.join(absent)}: expected 'reference' and "
                             "'test', as measurements.pair gives them")
        a, b = (pairs[name].to_numpy(float, na_value=np.nan) for name in ("reference", "test"))
        found = compare(pairs, confidence=confidence, cluster=cluster, limits=limits)
        row, patients, equal, by_size = found.row(), None, None, None
        if found.limits.by_patients:
            patients = with_patients(pairs)["patient_id"] if cluster == "auto" else pairs[cluster]
        if margin is not None:
            equal = equivalence.tost(a, b, margin, cluster=patients)
        if found.lead.kind == "regression":
            by_size = agreement.limits_by_size(a, b, np.quantile((a + b) / 2, [0.25, 0.75]),
                                               confidence=confidence, cluster=patients)
        return cls(pairs, found, row, equal, by_size, reference, test, quantity, unit,
                   f"{100 * confidence:g} %", what)

    @property
    def by_patients(self) -> bool:
        return self.found.limits.by_patients

    @property
    def of_patients(self) -> str:
        return " of patients" if self.by_patients else ""

    def interval(self, ends: tuple[float, float]) -> str:
        """`95 % CI 1 to 2`."""
        return _interval(ends, self.level)

    def between(self, name: str) -> str:
        """The interval of a column of the row, by its two ends' columns."""
        return self.interval((self.row[f"{name}_lower"], self.row[f"{name}_upper"]))

    def design(self) -> list[str]:
        """Methods: who was compared in how many."""
        of_whom = _count(self.row["n"], self.what)
        if self.row["n_patients"] < self.row["n"]:
            of_whom += f" of {_count(self.row['n_patients'], 'patient')}"
        return [f"Paired readings of {self.quantity} ({self.unit}) by {self.reference} and "
                f"{self.test} were compared in {of_whom}.",
                f"Differences are {self.test} − {self.reference}."]

    def differences(self) -> list[str]:
        """Methods: bias, limits, their tests, association."""
        what, level, method = self.what, self.level, self.row["signed_rank_method"]
        how = {"exact": "exact", "asymptotic": "normal approximation with continuity correction",
               "none": "not possible, all differences being zero"}.get(method, "")
        if self.by_patients:
            said = [
                f"Since patients have several {what}s, not {what}s but patients were taken as "
                f"independent: bias (mean difference) and SD are those of clustered pairs (Bland & "
                f"Altman 2007), the {level} confidence interval (CI) of the bias by Student's t on "
                "the patients.",
                f"{TREND} and a wild bootstrap by patients (Cameron, Gelbach & Miller 2008); "
                "spread (Breusch–Pagan) and normality (Shapiro–Wilk) of the differences as if "
                "pairs were independent.",
                f"A shift was tested by the clustered signed-rank test (Rosner, Glynn & Lee 2006; "
                f"{method.split(',')[0]}; zero differences left out)."]
        else:
            said = [
                f"Bias (mean difference) is given with its {level} confidence interval (CI, "
                "Student's t).",
                f"{TREND} and a wild bootstrap (Davidson & Flachaire 2008), constant spread by the "
                "Breusch–Pagan test, normality of the differences by the Shapiro–Wilk test.",
                f"A shift was tested with Wilcoxon's signed-rank test (two-sided; {how}; zero "
                "differences left out before ranking) and estimated by the Hodges–Lehmann "
                "estimator."]
        return [*said,
                "Association was measured by Spearman's ρ (CI by the infinitesimal jackknife"
                f"{self.of_patients}), agreement about the line of identity by Lin's concordance "
                "correlation coefficient (CCC; CI by a studentized bootstrap"
                f"{self.of_patients}, symmetric, on Fisher's scale, 2,000 resamples) and, which "
                "single large differences can't decide, by the concordance of ranks (Tu et al. "
                f"2023; CI by the infinitesimal jackknife{self.of_patients}); none needs normal "
                "readings."]

    def kind_of_limits(self) -> list[str]:
        """Methods: which limits of agreement are given, and why these; the margin."""
        lead = self.found.lead
        worth = " for as many pairs as these are worth (Kish's design effect)" * self.by_patients
        kind = {
            "constant": f"bias ± 1.96 SD; CIs by the MOVER method{worth}",
            "ratio": f"those of the ratio {self.test} / {self.reference} in the {self.what}s that "
                     "both measured: mean ± 1.96 SD of its logarithm; CIs by the MOVER method"
                     f"{worth}; {self.what}s with a zero are told apart by detection",
            "regression": "by regression of bias and SD on the mean of the pair (Bland & Altman "
                          f"1999); CIs by the jackknife{self.of_patients}",
            "quantile": "2.5 % and 97.5 % quantiles of the differences, type 8; CIs by order "
                        f"statistics{worth}"}[lead.kind]
        said = [f"95 % limits of agreement are given ({kind})."]
        if lead.planned:
            said.append("That kind of limits was declared before the data were seen.")
        else:
            tests = {"slope": "proportional bias", "spread": "spread", "normality": "normality"}
            found = [f"{tests[name]} {p_words(p)}" for name, p in self.found.against.items()]
            run = [name for name in ("slope_p", "heteroscedasticity_p", "shapiro_p")
                   if not np.isnan(self.row[name])]
            what = f"which spoke against constant ones ({', '.join(found)})" if found else \
                "none of which spoke against constant ones" if len(run) == len(tests) else \
                "not all of which could be run" if run else "none of which could be run"
            said.append("Their kind was not declared beforehand but chosen by the tests of "
                        f"proportional bias, spread and normality, {what}"
                        f"{f'; {lead.note}' if lead.note else ''}.")
        if self.equal is not None:
            said.append(f"Equivalence of the means within ± {_number(self.equal.margin)} "
                        f"{self.unit}, a margin declared in advance, was tested by two one-sided t "
                        f"tests (TOST, 5 %{'; on the patients' * self.by_patients}).")
        return said

    def the_rest(self) -> list[str]:
        """Methods: multiplicity and software."""
        software = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        return ["P values were not adjusted for their number.",
                f"Computed with deeplung_nb {__version__} (Python {platform.python_version()}, "
                f"{software})."]

    def detection(self) -> list[str]:
        """Results: who found it where, and what could not be compared."""
        a, b = (self.pairs[name].to_numpy(float, na_value=np.nan) > 0
                for name in ("reference", "test"))
        said = [] if pd.isna(self.row["detected_both"]) else [
                f"Both readers found it in {_count(int((a & b).sum()), self.what)}, "
                f"{self.reference} alone in {int((a & ~b).sum())}, {self.test} alone in "
                f"{int((~a & b).sum())}, neither in {int((~a & ~b).sum())}."]
        if failed := self.pairs.attrs.get("n_failed", 0):
            said.append(f"{_count(failed, self.what)} failed and could not be compared.")
        if unread := self.pairs.attrs.get("n_unread", 0):
            said.append(f"{_count(unread, self.what)} not read by both could not be compared.")
        if below := self.pairs.attrs.get("below"):
            counted = sorted({note.rsplit(", ", 1)[1] for note in below})
            said.append(f"{_count(len(below), 'reading')} below the limit of what can be told "
                        f"{'was' if len(below) == 1 else 'were'} {' or '.join(counted)}.")
        return said

    def of_shift(self, name: str, n: int) -> str:
        """The interval of a shift, by the confidence that so few differences can give."""
        most = 1 - 2 * 0.5 ** n  # of the widest interval, between lowest and highest average
        said = self.between(name)
        if n and 100 * most < float(self.level.split()[0]):
            said = "no interval from one difference" if n == 1 else \
                said.replace(self.level, f"{100 * most:.4g} %", 1)
        return said

    def shift(self) -> str:
        """The Hodges-Lehmann shift, with its intervals where there are some."""
        row, n = self.row, self.row["n"]
        said = (f"the Hodges–Lehmann shift over all {_count(n, self.what)} "
                f"{_number(row['hodges_lehmann_all'])} {self.unit}")
        if not self.by_patients:
            said += f" ({self.of_shift('hodges_lehmann_all', n)})"
            unlike = int((self.pairs["reference"] != self.pairs["test"]).sum())
            if unlike < n:
                said += (f", over the {unlike} that differ {_number(row['hodges_lehmann'])} "
                         f"{self.unit} ({self.of_shift('hodges_lehmann', unlike)})")
        return said

    def agreement(self) -> list[str]:
        """Results: sizes, bias, limits, signs, association, equivalence."""
        row, unit = self.row, self.unit
        a, b = (self.pairs[name].to_numpy(float, na_value=np.nan) for name in ("reference", "test"))
        quartiles = [np.quantile(values, [0.25, 0.5, 0.75]) for values in (a, b)]
        first, second = (f"{_number(q[1])} {unit} (quartiles {_number(q[0])} to {_number(q[2])})"
                         for q in quartiles)
        said = [
            f"The median {self.quantity} was {first} by {self.reference} and {second} by "
            f"{self.test} (quartiles of type 7).",
            f"The bias of {self.test} against {self.reference} was {_number(row['bias'])} {unit} "
            f"({self.between('bias')}).",
            *self.limits(),
            f"Of {row['n']} differences {int((a == b).sum())} were zero, {int((b > a).sum())} "
            f"positive and {int((b < a).sum())} negative (signed-rank "
            f"{p_words(row['signed_rank_p'])}; null hypothesis: differences symmetric about zero), "
            f"{self.shift()}.",
            f"Spearman's ρ was {_number(row['spearman'])} ({self.between('spearman')}), the CCC "
            f"{_number(row['ccc'])} ({self.between('ccc')}), that of ranks "
            f"{_number(row['ccc_rank'])} ({self.between('ccc_rank')})."]
        if self.found.leverage > MOST_LEVERAGE:
            said.append("One patient makes most of the CCC's variance: its interval may fall "
                        "short, and the coefficients of ranks say more.")
        if self.equal is not None:
            verdict = "lay within" if self.equal.p_value < 0.05 else "was not shown to lie within"
            low, high = self.equal.bias_ci
            said.append(f"The bias {verdict} the margin of ± {_number(self.equal.margin)} {unit} "
                        f"(TOST {p_words(self.equal.p_value)}; its 90 % CI is {_number(low)} to "
                        f"{_number(high)} {unit}).")
        return said

    def limits(self) -> list[str]:
        """Results: the limits of agreement, one kind of them."""
        lead, row, unit = self.found.lead, self.row, self.unit
        ends = (f"{_number(row['limit_lower'])} ({self.between('limit_lower_ci')}) to "
                f"{_number(row['limit_upper'])} ({self.between('limit_upper_ci')})")
        outside = _number(lead.limits.percent_outside)
        if lead.kind == "ratio":
            ratio = lead.limits
            return [f"In the {ratio.n} {self.what}s that both measured the ratio {self.test} / "
                    f"{self.reference} was {_number(ratio.bias)} on average (geometric; "
                    f"{self.interval(ratio.bias_ci)}), with limits of agreement from {ends}; "
                    f"{outside} % of the ratios lay outside them."]
        if self.by_size is not None:
            return ["The limits of agreement were " + " and ".join(
                f"{_number(at.loa_lower)} "
                f"({self.interval((at.loa_lower_ci_lower, at.loa_lower_ci_upper))}) to "
                f"{_number(at.loa_upper)} "
                f"({self.interval((at.loa_upper_ci_lower, at.loa_upper_ci_upper))}) {unit} at "
                f"{_number(at.size)} {unit}" for at in self.by_size.itertuples())
                + f" (the quartiles of the means), and from {ends} at the mean of all; "
                f"{outside} % of the differences lay outside them."]
        return [f"The limits of agreement were {ends} {unit}; {outside} % of the differences lay "
                "outside them."]

    def to_mind(self) -> list[str]:
        """Results: trends, and what to take with reserve."""
        row, unit, lead = self.row, self.unit, self.found.lead
        said = []
        if row["slope_p"] < 0.05:
            said.append(f"The difference changed with the size of the reading (slope "
                        f"{_number(row['slope'])} per {unit}, {p_words(row['slope_p'])}); unequal "
                        "error variances of the two readers alone would make such a slope.")
        if row["heteroscedasticity_p"] < 0.05:
            said.append("The spread changed with the size "
                        f"({p_words(row['heteroscedasticity_p'])}).")
        if row["shapiro_p"] < 0.05:
            said.append(f"The differences were not normal ({p_words(row['shapiro_p'])}).")
        if lead.kind == "ratio" and lead.limits.shapiro_p < 0.05:
            said.append(f"The ratios were not normal ({p_words(lead.limits.shapiro_p)}): where "
                        "single pairs lie far off, their limits hold less than they say.")
        if row["n_zero"] > row["n"] / 3:
            said.append(f"In {row['n_zero']} of {row['n']} pairs a reading was zero: the "
                        "correlation rests on the others.")
        if row["reasons"]:
            said.append(f"Not estimable, or with reserve: {row['reasons']}.")
        return said
