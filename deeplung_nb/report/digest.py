"""A run's main numbers as Markdown: for a terminal, a README, an e-mail."""

from __future__ import annotations

from typing import Any

import pandas as pd

from deeplung_nb.labels import LESION_STRUCTURES, TITLES
from deeplung_nb.report.counts import case_names
from deeplung_nb.report.numbers import interval, number
from deeplung_nb.report.tables import LIMITS
from deeplung_nb.stats import summary
from deeplung_nb.stats.dice import dice_table

MOST_CASES = 20
"""More cases than this are summarised only."""


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)


def _cases(rows: pd.DataFrame, reader: str) -> str:
    head = ["case", *(f"{TITLES[s]}, mL: expert, automatic (Dice)" for s in LESION_STRUCTURES)]
    table = [head]
    for name, case in rows.groupby(case_names(rows), sort=False):
        cells = [name]
        for structure in LESION_STRUCTURES:
            part = case[case["structure"] == structure].set_index("reader")
            if not {"expert", reader} <= set(part.index):
                cells.append("not told apart")
                continue
            machine = part.loc[reader]
            if machine["status"] != "ok":
                cells.append("failed")
                continue
            cells.append(f"{number(part.loc['expert', 'volume_ml'])}, "
                         f"{number(machine['volume_ml'])} ({number(machine['dice'])})")
        table.append(cells)
    return _markdown(table)


def _dice(dice: pd.DataFrame | None, role: str, structure: str) -> tuple[str, str]:
    """Mean of cases with its SD, and pooled; dashes where there are no masks."""
    if dice is None:
        return "–", "–"
    scores = dice[(dice["role"] == role) & (dice["structure"] == structure)]
    mean = scores[(scores["averaging"] == "per case") & (scores["empty"] == "nan")].iloc[0]
    pooled = scores[scores["averaging"] == "pooled"].iloc[0]
    return f"{number(mean['dice'])} ± {number(mean['sd_cases'])}", number(pooled["dice"])


def _limits(row: Any) -> str:
    """The limits to report, and what they are of."""
    low, high = (f"{number(getattr(row, f'limit_{side}'))} "
                 + interval((getattr(row, f"limit_{side}_ci_lower"),
                             getattr(row, f"limit_{side}_ci_upper")))
                 for side in ("lower", "upper"))
    return f"{low} to {high} ({LIMITS[row.limits].format('mL')})"


def write_digest(measurements: pd.DataFrame, reader: str = "model", limits: str = "auto") -> str:
    """Volumes and Dice of each case (of few), then agreement by role, as Markdown.

    Dice is averaged over cases with both masks empty left out, and pooled over all voxels;
    Spearman's rho, bias and limits of agreement are of volumes, with 95 % intervals.

    Parameters
    ----------
    limits
        As `stats.comparison.compare`.
    """
    parts = []
    agreement = summary.agreement_table(measurements, by=("role", "structure"), test=reader,
                                        limits=limits)
    # Simulated readings have no masks, and so no Dice.
    has_dice = measurements.loc[measurements["reader"] == reader, "tp"].notna().any()
    dice = dice_table(measurements, test=reader, by=("role",)) if has_dice else None
    for role, rows in measurements.groupby("role", sort=True):
        n_cases = rows[["cohort", "case_id"]].drop_duplicates().shape[0]
        if n_cases <= MOST_CASES:
            parts.append(_cases(rows, reader))
        table = [["structure", "n", "Dice, mean of cases ± SD", "Dice, pooled", "Spearman ρ",
                  "bias, mL", "limits of agreement"]]
        for row in agreement[agreement["role"] == role].itertuples():
            table.append([
                f"{TITLES[row.structure]} ({role})", str(row.n),
                *_dice(dice, role, row.structure),
                f"{number(row.spearman)} {interval((row.spearman_lower, row.spearman_upper))}",
                f"{number(row.bias)} {interval((row.bias_lower, row.bias_upper))}",
                _limits(row)])
        parts.append(_markdown(table))
    return "\n\n".join(parts) + "\n"
