"""One number of agreement: correlation about the line of identity, by size or by rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.labels import counted
from deeplung_nb.stats import robust
from deeplung_nb.stats._influence import ALIKE, from_influence, places_of, weight_above
from deeplung_nb.stats._results import FEWEST, Result, check_confidence, clustered_pairs
from deeplung_nb.stats.limits import NAN, NO_CI, plain


@dataclass(frozen=True, repr=False)
class Concordance(Result):
    """Result of `concordance`."""

    n: int
    n_clusters: int
    ccc: float
    ccc_ci: tuple[float, float]
    pearson: float
    bias_correction: float
    location_shift: float
    scale_shift: float
    n_missing: int
    reason: str


def concordance(reference: Any, test: Any, *, ci: str = "auto", cluster: Any = None,
                confidence: float = 0.95, missing: str = "raise") -> Concordance:
    """Lin's concordance correlation coefficient: correlation about the line of identity.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    ci
        `auto`, `studentized`: `robust.studentized`, which holds with zeros, skew and several pairs
        a patient; `lin`: Fisher's z with Lin's variance, as other programs print, for normal
        readings of independent pairs. Neither holds where a few pairs are grossly wrong: see
        `rank_concordance`.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.

    Returns
    -------
    Concordance
        `ccc` = `pearson` x `bias_correction`; `location_shift` (mean test - mean reference in units
        of the geometric mean SD); `scale_shift` (SD of test / SD of reference).

    Formula
    -------
    ccc = 2 s_xy / (s_x^2 + s_y^2 + (mean y - mean x)^2), moments with divisor n; Lin's interval by
    Fisher's z with his variance.

    Source
    ------
    Lin 1989, Biometrics 45:255, with the correction of 2000, Biometrics 56:324.

    Checked against
    ---------------
    R epiR::epi.ccc.

    Examples
    --------
    >>> round(concordance([1.0, 2.0, 3.0, 4.0], [1.1, 1.9, 3.2, 4.0]).ccc, 6)
    0.994036
    """
    if ci not in ("lin", "studentized", "auto"):
        raise ValueError(f"ci {ci!r}: expected one of lin, studentized, auto")
    check_confidence(confidence)
    x, y, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    n, m = len(x), int(codes.max(initial=-1)) + 1
    if ci == "lin" and m < n:
        raise ValueError("ci='lin' takes pairs as independent, and patients have several: expected "
                         "'auto', or leave cluster out")
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        why = "fewer than 3 pairs" if n < 3 else "a reader is constant"
        return Concordance(n, m, NAN, NO_CI, NAN, NAN, NAN, NAN, n_missing, why)
    s_x, s_y = x.std(), y.std()
    covariance = float(np.mean((x - x.mean()) * (y - y.mean())))
    shift = float(y.mean() - x.mean())
    ccc = float(np.clip(2 * covariance / (s_x**2 + s_y**2 + shift**2), -1, 1))
    r = float(np.clip(covariance / (s_x * s_y), -1, 1))
    u = shift / np.sqrt(s_x * s_y)
    interval, why = NO_CI, ""
    if ci != "lin":
        interval = robust.studentized(x, y, codes, confidence=confidence).ccc
        why = "no interval: too few pairs, or on a line" if np.isnan(interval[0]) else ""
    elif abs(r) < 1 - 1e-12 and ccc != 0:
        variance = ((1 - r**2) * ccc**2 / ((1 - ccc**2) * r**2)
                    + 2 * ccc**3 * (1 - ccc) * u**2 / (r * (1 - ccc**2) ** 2)
                    - ccc**4 * u**4 / (2 * r**2 * (1 - ccc**2) ** 2)) / (n - 2)
        half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
        interval = plain(tuple(np.tanh(np.arctanh(ccc) + np.array([-half, half]))))
    else:
        why = "no interval: the readings lie on a line, or the coefficient is 0"
    return Concordance(n, m, ccc, interval, r, ccc / r if r else NAN, float(u),
                       float(s_y / s_x), n_missing, why)


@dataclass(frozen=True, repr=False)
class RankConcordance(Result):
    """Result of `rank_concordance`."""

    n: int
    n_clusters: int
    coefficient: float
    ci: tuple[float, float]
    n_missing: int
    reason: str


def rank_concordance(reference: Any, test: Any, *, cluster: Any = None, confidence: float = 0.95,
                     missing: str = "raise") -> RankConcordance:
    """Concordance of ranks: agreement about the line of identity that gross errors can't decide.

    The CCC squares differences, so that one pair in thirty that is grossly wrong outweighs all
    others. Here each reading counts by its rank among all readings of both readers together: a
    reader who always reads more still loses, a reading that is wrong by a factor of ten loses no
    more than one that is wrong by all ranks.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D, same unit.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.

    Returns
    -------
    RankConcordance
        1 where the readings of each pair are equal, 0 where they are no nearer in rank than any
        two. It does not change with the unit or the logarithm of the readings.

    Formula
    -------
    u_i, v_i: ranks of the two readings of pair i among all 2n (ties share theirs), less their
    mean; coefficient = sum u_i v_i / (sum (u_i^2 + v_i^2) / 2). Interval: tanh(z ± t SE), z =
    atanh of it, t on patients - 1, SE by the infinitesimal jackknife of patients.

    Source
    ------
    Tu, Li, Zeng & Shepherd 2023, Stat Med 42:4333 (rank intraclass correlation).

    Checked against
    ---------------
    The intraclass form of the CCC of pooled ranks; the jackknife that leaves out each patient;
    coverage by simulation.

    Examples
    --------
    >>> r = rank_concordance([1.0, 2, 3, 4, 5, 6], [1.5, 2, 3, 4.5, 5, 600])
    >>> round(r.coefficient, 3)
    0.979
    """
    check_confidence(confidence)
    x, y, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    n, m = len(x), int(codes.max(initial=-1)) + 1
    both = np.concatenate([x, y])
    if n < 2 or np.ptp(both) == 0:
        return RankConcordance(n, m, NAN, NO_CI, n_missing, f"{counted(n, 'pair')}: needs 2 or more"
                               if n < 2 else "all readings are equal")
    ranks = (stats.rankdata(both) - (2 * n + 1) / 2) / (2 * n)
    u, v = ranks[:n], ranks[n:]
    shared, spread = float(np.mean(u * v)), float(np.mean(u * u + v * v)) / 2
    found = shared / spread
    if np.array_equal(x, y):
        return RankConcordance(n, m, 1.0, NO_CI, n_missing, "no interval: all pairs are equal")

    at_x, at_y = places_of(x, y)

    def moved(of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
        """What a pair adds by moving the ranks of all others."""
        return sum(weight_above(at, at_x, of_x) + weight_above(at, at_y, of_y)
                   for at in (at_x, at_y)) / 2

    added = u * v + moved(v, u) - found * ((u * u + v * v) / 2 + moved(u, v))
    ends = from_influence(found, (added - added.mean()) / spread, codes, confidence)
    why = "" if np.isfinite(ends[0]) else (
        f"no interval: fewer than {FEWEST} patients" if m < FEWEST else
        "no interval: the coefficient is -1" if abs(found) > 1 - 1e-12 else ALIKE)
    return RankConcordance(n, m, found, ends, n_missing, why)
