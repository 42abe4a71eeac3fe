"""How many patients the next study needs; of limits of agreement: `equivalence.sample_size`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from deeplung_nb.stats._results import Result, check_confidence

MOST = 1_000_000


@dataclass(frozen=True, repr=False)
class Needed(Result):
    """Result of the functions here."""

    n: int
    reached: float
    """Half-width of the interval, or power, with so many."""
    method: str


def _positive(**given: float) -> None:
    for name, value in given.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value}: expected a number above 0")


def _share(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}={value}: expected a number between 0 and 1")


def _first(enough: Callable[[int], bool], fewest: int, what: str) -> int:
    """The smallest n that is enough; what is enough for n is for more."""
    high = fewest
    while not enough(high):
        high *= 2
        if high > MOST:
            raise ValueError(f"{what}: more than {MOST:,} would be needed")
    low = max(fewest - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def for_icc(icc: float, half_width: float, *, n_readers: int = 2, confidence: float = 0.95
            ) -> Needed:
    """Subjects so that the interval of an intraclass correlation is not wider than wanted.

    Parameters
    ----------
    icc
        The coefficient expected, 0 to 1.
    half_width
        Half of the interval's width.
    n_readers
        Who each read every subject.

    Returns
    -------
    Needed
        `n` subjects.

    Formula
    -------
    n = 8 z^2 (1 - icc)^2 (1 + (k - 1) icc)^2 / (k (k - 1) w^2) + 1, w the full width, k readers;
    and 5 icc more with two readers and an icc of 0.7 or more, as the source advises.

    Source
    ------
    Bonett 2002, Stat Med 21:1331.

    Checked against
    ---------------
    The formula by hand; the mean width of simulated intervals of `reliability.icc`.

    Examples
    --------
    >>> for_icc(0.8, 0.1).n
    55
    """
    check_confidence(confidence)
    _share(icc=icc)
    _positive(half_width=half_width)
    if n_readers < 2:
        raise ValueError(f"n_readers={n_readers}: expected 2 or more")
    z, k = float(stats.norm.ppf((1 + confidence) / 2)), n_readers
    top = 8 * z**2 * (1 - icc) ** 2 * (1 + (k - 1) * icc) ** 2 / (k * (k - 1))
    more = 5 * icc if k == 2 and icc >= 0.7 else 0.0
    n = int(np.ceil(top / (2 * half_width) ** 2 + 1 + more))
    return Needed(n, float(np.sqrt(top / (n - 1 - more)) / 2), "interval of the ICC")


def for_kappa(kappa: float, share: float, half_width: float, *, confidence: float = 0.95
              ) -> Needed:
    """Cases so that the interval of Cohen's kappa of yes and no is not wider than wanted.

    Parameters
    ----------
    kappa
        The coefficient expected, 0 to 1.
    share
        Of the cases that are a yes, 0 to 1: rare ones take many more cases.
    half_width
        Half of the interval's width.

    Returns
    -------
    Needed
        `n` cases, each read by both.

    Formula
    -------
    n = (z / half_width)^2 (1 - kappa) ((1 - kappa)(1 - 2 kappa) + kappa (2 - kappa) / (2 share
    (1 - share))).

    Source
    ------
    Donner & Eliasziw 1992, Stat Med 11:1511 (large-sample variance, equal margins).

    Checked against
    ---------------
    The formula by hand; the SD of simulated kappas.

    Examples
    --------
    >>> for_kappa(0.7, 0.3, 0.1).n, for_kappa(0.7, 0.05, 0.1).n
    (236, 1091)
    """
    check_confidence(confidence)
    _share(kappa=kappa, share=share)
    _positive(half_width=half_width)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    variance = (1 - kappa) * ((1 - kappa) * (1 - 2 * kappa)
                              + kappa * (2 - kappa) / (2 * share * (1 - share)))
    n = int(np.ceil((z / half_width) ** 2 * variance))
    return Needed(n, float(z * np.sqrt(variance / n)), "interval of kappa")


def for_mean(sd: float, half_width: float, *, per_patient: float = 1.0, alike: float = 0.0,
             confidence: float = 0.95) -> Needed:
    """Cases so that the interval of a mean, as of Dice, is not wider than wanted.

    Parameters
    ----------
    sd
        Of one case's value, over cases.
    half_width
        Half of the interval's width, in the same unit.
    per_patient
        Cases a patient, on average.
    alike
        Intraclass correlation of a patient's cases, 0 to 1.

    Returns
    -------
    Needed
        `n` cases; patients are n / per_patient, rounded up.

    Formula
    -------
    Smallest n with t sqrt(1 + (per_patient - 1) alike) sd / sqrt(n) <= half_width, t on patients
    - 1 degrees of freedom.

    Source
    ------
    Student 1908, Biometrika 6:1; the design effect: Kish 1965, Survey Sampling, section 8.2.

    Checked against
    ---------------
    The width of simulated intervals.

    Examples
    --------
    >>> for_mean(0.15, 0.05).n, for_mean(0.15, 0.05, per_patient=3, alike=0.6).n
    (38, 84)
    """
    check_confidence(confidence)
    _positive(sd=sd, half_width=half_width)
    if per_patient < 1 or not 0 <= alike <= 1:
        raise ValueError(f"per_patient={per_patient}, alike={alike}: expected 1 or more, and a "
                         "correlation from 0 to 1")
    design = np.sqrt(1 + (per_patient - 1) * alike)

    def half(n: int) -> float:
        patients = max(2.0, np.ceil(n / per_patient))
        return float(stats.t.ppf((1 + confidence) / 2, patients - 1) * design * sd / np.sqrt(n))

    n = _first(lambda n: half(n) <= half_width, int(np.ceil(2 * per_patient)), "for_mean")
    return Needed(n, half(n), "interval of a mean")


def for_interchangeability(difference: float, sd: float, margin: float, *, power: float = 0.8,
                           confidence: float = 0.95) -> Needed:
    """Patients to show that a machine differs from readers no more than they from each other.

    Parameters
    ----------
    difference
        Expected: mean difference machine-reader less reader-reader (`readers.interchangeability`).
    sd
        Of that difference from patient to patient, as a pilot study shows.
    margin
        Up to which it does not matter, in the same unit.
    power
        With which the upper end of the interval is to lie below the margin.

    Returns
    -------
    Needed
        `n` patients.

    Formula
    -------
    Power from the noncentral t with n - 1 degrees of freedom and noncentrality (margin -
    difference) sqrt(n) / sd, one side at (1 + confidence) / 2.

    Source
    ------
    Obuchowski, Subhas & Schoenhagen 2014, Acad Radiol 21:1483; Julious 2010, Sample Sizes for
    Clinical Trials, ch. 6 (noninferiority).

    Checked against
    ---------------
    Simulated studies.

    Examples
    --------
    >>> for_interchangeability(0.0, 10.0, 4.0).n
    52
    """
    check_confidence(confidence)
    _share(power=power)
    _positive(sd=sd, margin=margin)
    if difference >= margin:
        raise ValueError(f"difference {difference} is not below the margin {margin}: no number of "
                         "patients can show it")

    def reached(n: int) -> float:
        t = stats.t.ppf((1 + confidence) / 2, n - 1)
        return float(stats.nct.sf(t, n - 1, (margin - difference) * np.sqrt(n) / sd))

    n = _first(lambda n: reached(n) >= power, 2, "for_interchangeability")
    return Needed(n, reached(n), "power of noninferiority")
