"""Who sees the structure at all."""

from __future__ import annotations

import pandas as pd


def detection(pair: pd.DataFrame) -> dict[str, int]:
    """2 x 2 of any against none: who sees the structure at all.

    Parameters
    ----------
    pair
        Columns `reference` and `test`, one row a case.

    Returns
    -------
    dict
        Cases of `both`, `reference_only`, `test_only`, `neither`; a pair with an empty reading is
        none of them.

    Formula
    -------
    Seen is above 0.

    Source
    ------
    Bossuyt et al. 2015 (STARD), BMJ 351:h5527, item 23: cross tabulation.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> detection(pd.DataFrame({"reference": [0.0, 2.0, 3.0], "test": [0.0, 0.0, 4.0]}))
    {'both': 1, 'reference_only': 1, 'test_only': 0, 'neither': 1}
    """
    read = pair[["reference", "test"]].dropna()
    wanted, found = read.reference > 0, read.test > 0
    return {"both": int((wanted & found).sum()), "reference_only": int((wanted & ~found).sum()),
            "test_only": int((~wanted & found).sum()), "neither": int((~wanted & ~found).sum())}
