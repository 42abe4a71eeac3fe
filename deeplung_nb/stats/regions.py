"""Agreement by region of the lungs: is a volume right everywhere, or right in its sum only?"""

from __future__ import annotations

import pandas as pd

from deeplung_nb.labels import LESION_STRUCTURES, REGIONS
from deeplung_nb.measurements.contract import HU_PERCENTILES
from deeplung_nb.stats.summary import agreement_table

OPACITY = ("po_percent", "pho_percent")
DENSITIES = ("mean_hu", *(f"hu_p{percent:02d}" for percent in HU_PERCENTILES))


def region_table(frame: pd.DataFrame, structure: str = "lesion", *, reference: str = "expert",
                 test: str = "model", limits: str = "auto") -> pd.DataFrame:
    """One row of agreement statistics for each cohort, role and region of the lungs.

    Then, of any lesion, two rows more: percentage of opacity and of high opacity.

    Parameters
    ----------
    frame
        A checked table of measurements.
    structure
        Whose volume in each region is compared.
    reference, test, limits
        As `summary.agreement_table`.

    Returns
    -------
    DataFrame
        The column `region` (of the last two `po_percent` and `pho_percent`), then those of
        `summary.agreement_table`; cases without lungs, which have no regions, are counted in
        `n_missing`. Empty where no case has any.
    """
    rows = frame.loc[frame["structure"] == structure]
    values = {name: f"volume_{name}_ml" for name in REGIONS}
    values |= {name: name for name in OPACITY if structure == "lesion"}
    parts = [agreement_table(rows, ("cohort", "role", "structure"), reference=reference, test=test,
                             value=value, missing="drop", limits=limits).assign(region=name)
             for name, value in values.items()
             if value in rows.columns and bool(rows.loc[:, value].notna().any())]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts)
    table.insert(0, "region", table.pop("region"))
    order = {name: k for k, name in enumerate(values)}
    return table.sort_values(["cohort", "role", "region"], kind="stable",
                             key=lambda column: column.map(order) if column.name == "region"
                             else column, ignore_index=True)


def density_table(frame: pd.DataFrame, readers: tuple[str, ...] = ("expert", "model")
                  ) -> pd.DataFrame:
    """How dense lungs and lesions are: medians over cases of each case's own mean and percentiles.

    A case counts once, however large its lesion is; one without the structure is in no median.

    Parameters
    ----------
    frame
        A checked table of measurements; the lungs are the same for all readers and are taken from
        the first.

    Returns
    -------
    DataFrame
        `role, structure, reader, n` (cases that have it)`, mean_hu, hu_p05` to `hu_p95` (HU). Empty
        where the table has no percentiles.
    """
    names = [name for name in DENSITIES if name in frame]
    rows = frame.loc[frame["reader"].isin(readers)
                     & ((frame["structure"] != "lung") | (frame["reader"] == readers[0]))
                     & frame["structure"].isin(("lung", *LESION_STRUCTURES))]
    if names == ["mean_hu"] or not names or rows.loc[:, names[-1]].isna().all():
        return pd.DataFrame(columns=["role", "structure", "reader", "n", *DENSITIES])
    rows = rows[rows[names[-1]].notna()]
    by = ["role", "structure", "reader"]
    table = rows.groupby(by, sort=False)[names].median().assign(
        n=rows.groupby(by, sort=False).size()).reset_index()[[*by, "n", *names]]
    order = [*("lung", *LESION_STRUCTURES), *readers]
    return table.sort_values(by, ignore_index=True, kind="stable", key=lambda column: column if
                             column.name == "role" else column.map(order.index))
