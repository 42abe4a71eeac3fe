"""How fast the agreement explorer is over many pairs: .venv/bin/python tools/measure_explorer.py

Without a page: from a control's change to table and figure, s. Another scale asks the same pairs;
another structure, or other cases, are pairs whose statistics are worked out anew.
"""

import time

import numpy as np
import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.widgets import AgreementExplorer


def readings(n: int) -> pd.DataFrame:
    """Two readers of n cases in two structures, lognormal with a tenth of zeros."""
    rng, parts = np.random.default_rng(0), []
    for structure in ("lesion", "ggo"):
        size = np.exp(rng.normal(4, 1.2, n)) * (rng.random(n) > 0.1)
        parts.append(pd.DataFrame({
            "case_id": [f"C{k:06d}" for k in range(n)], "structure": structure,
            "expert": size.round(1), "model": (size * np.exp(rng.normal(0, 0.2, n))).round(1),
            "centre": ["ABC"[k % 3] for k in range(n)]}))
    return measurements.from_wide(pd.concat(parts), {"expert": "expert", "model": "model"},
                                  unit="mL")


def main() -> None:
    """Print a line for each change."""
    AgreementExplorer(readings(50))  # what is imported and drawn for the first time
    for n in (5_000, 100_000):
        table, start = readings(n), time.perf_counter()
        explorer = AgreementExplorer(table)
        print(f"{n} pairs: open {time.perf_counter() - start:.1f} s", end="")
        for name, value in (("scale", "ratio"), ("scale", "difference"), ("structure", "ggo"),
                            ("where centre", "B")):
            start = time.perf_counter()
            explorer._controls[name].value = value
            print(f"; {name.removeprefix('where ')} {value} {time.perf_counter() - start:.1f} s",
                  end="")
        print(flush=True)


if __name__ == "__main__":
    main()
