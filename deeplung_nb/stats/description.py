"""One sample in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplung_nb.stats._results import Result, one_array

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class Description(Result):
    """Result of `describe`; quartiles of type 7 (R, numpy) and of type 6 (SPSS)."""

    n: int
    mean: float
    sd: float
    se: float
    median: float
    q1: float
    q3: float
    iqr: float
    q1_spss: float
    q3_spss: float
    iqr_spss: float
    minimum: float
    maximum: float
    n_zero: int
    n_missing: int


def describe(values: Any, *, missing: str = "raise") -> Description:
    """Mean, SD, SE, median, quartiles and extremes.

    Parameters
    ----------
    values
        1-D.
    missing
        `raise`, or `drop` and count.

    Returns
    -------
    Description
        In the unit of the values; NaN where n does not allow it.

    Formula
    -------
    SD with n - 1; SE = SD / sqrt(n); quartiles of type 7 (`q1`), and of type 6 (`q1_spss`).

    Source
    ------
    Hyndman & Fan 1996, Am Stat 50:361: type 7 is R's and numpy's default, type 6 is SPSS's.

    Checked against
    ---------------
    numpy, and quartiles by hand.

    Examples
    --------
    >>> d = describe([1.0, 2.0, 3.0, 4.0])
    >>> d.median, d.q1, d.q1_spss
    (2.5, 1.75, 1.25)
    """
    a, n_missing = one_array(values, missing=missing)
    n = len(a)
    if n == 0:
        return Description(0, *[NAN] * 12, 0, n_missing)
    sd = float(a.std(ddof=1)) if n > 1 else NAN
    q1, q3 = np.quantile(a, [0.25, 0.75])
    spss = np.quantile(a, [0.25, 0.75], method="weibull")
    return Description(n, float(a.mean()), sd, sd / np.sqrt(n) if n > 1 else NAN,
                       float(np.median(a)), float(q1), float(q3), float(q3 - q1),
                       float(spss[0]), float(spss[1]), float(spss[1] - spss[0]),
                       float(a.min()), float(a.max()), int((a == 0).sum()), n_missing)
