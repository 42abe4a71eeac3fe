"""Readings that several files of these tests look at."""

from pathlib import Path

import numpy as np
import pandas as pd


def long(table, names=None, patients=None):
    """A table [subjects, readers] as rows; NaN is a reading that is not there."""
    n, k = np.shape(table)
    names = names or [f"r{j}" for j in range(k)]
    frame = pd.DataFrame({"s": np.repeat(np.arange(n), k), "r": names * n,
                          "v": np.ravel(table)})
    return frame if patients is None else frame.assign(p=np.repeat(patients, k))


def readings(seed, n=30, k=3, holes=0.0, subject=10.0, reader=2.0, error=3.0):
    rng = np.random.default_rng(seed)
    table = (rng.normal(0, subject, (n, 1)) + rng.normal(0, reader, k)
             + rng.normal(0, error, (n, k)) + 50)
    table[rng.random((n, k)) < holes] = np.nan
    return table


RNG = np.random.default_rng(3)


A = RNG.uniform(1, 400, 30)


ORACLE = Path(__file__).parent / "oracle"
