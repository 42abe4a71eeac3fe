"""Numbers for print: a real minus, as many digits as matter, a dash where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

MISSING = "–"


def number(value: float, digits: int = 3, most_decimals: int = 3) -> str:
    """A number with so many digits that matter; never fewer than are left of the point."""
    if not np.isfinite(value):
        return MISSING if np.isnan(value) else ("∞" if value > 0 else "−∞")
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:.{min(decimals, most_decimals)}f}".replace("-", "−")


def fixed(value: object, decimals: int = 1) -> str:
    """A number for a column: so many decimals, thousands apart."""
    if value is None or value is pd.NA or (np.isscalar(value) and pd.isna(value)):
        return MISSING
    return f"{float(value):,.{decimals}f}".replace("-", "−")


def interval(ends: Sequence[float]) -> str:
    """`[low, high]`; `[–]` where it is not defined."""
    return "[–]" if np.isnan(ends).all() else f"[{number(ends[0])}, {number(ends[1])}]"


def with_interval(value: object, low: object, high: object, decimals: int = 1) -> str:
    """`value [low, high]` for a column; the brackets are left out where there is no interval.

    A line may break before the bracket, not within it.
    """
    whole = fixed(value, decimals)
    if pd.isna(low) and pd.isna(high):
        return whole
    return f"{whole} [{fixed(low, decimals)},\u00a0{fixed(high, decimals)}]"


def decimals_for(value: float) -> int:
    """Decimals that show about three digits; none for whole numbers."""
    if pd.isna(value) or float(value).is_integer() or not np.isfinite(value):
        return 0
    return int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 8))


def p_cell(p: float) -> str:
    """A p value for a column: three decimals, `<0.001` below."""
    return MISSING if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float) -> str:
    """A p value for a sentence: `p = 0.012`, `p < 0.001`, `p not defined`."""
    if pd.isna(p):
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
