"""What a table of measurements must hold: columns, types, and `check`, which names every fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.labels import REGIONS, ROLES, STRUCTURES

HU_PERCENTILES = (5, 25, 50, 75, 95)
COLUMNS: dict[str, tuple[str, str]] = {
    "run_id": ("text", "profile and digest of the run"),
    "cohort": ("text", "name of the cohort"),
    "role": ("text", "cv (scored by the fold that did not see it) or external"),
    "case_id": ("text", "one CT scan"),
    "patient_id": ("text", "one patient"),
    "protocol": ("text", "non-contrast, contrast or unknown"),
    "scanner": ("text", "scanner model"),
    "centre": ("text", "centre"),
    "fold": ("count", "fold whose network read the case; empty for several or none"),
    "reader": ("text", "expert, model, fold-0 ..., ensemble, unet2d, unet3d"),
    "structure": ("text", "lung, ggo, high_opacity or lesion (the union of both)"),
    "n_voxels": ("count", "voxels on the scan's own grid"),
    "voxel_mm3": ("number", "volume of a voxel, mm3"),
    "volume_ml": ("number", "volume, mL"),
    "burden_percent": ("number", "volume as percent of the lung volume"),
    "mean_hu": ("number", "mean attenuation, HU"),
    "dice": ("number", "Dice against the expert; empty for the expert and where both are empty"),
    "hd95_mm": ("number", "95th percentile of the surface distance to the expert's mask, mm"),
    "nsd": ("number", "normalised surface Dice against the expert, by area"),
    "n_slices": ("count", "slices of the scan"),
    "slices_with": ("count", "slices with the structure"),
    "seconds": ("number", "time to segment, s"),
    "status": ("text", "ok, failed, or unread (this reader gave no reading)"),
    "note": ("text", "anything worth knowing; why a case failed"),
    "tp": ("count", "voxels in both the expert's and the reader's mask"),
    "fp": ("count", "voxels in the reader's mask only"),
    "fn": ("count", "voxels in the expert's mask only"),
    "tn": ("count", "voxels in neither mask"),
    "burden_in_lung_percent": ("number", "burden of what lies in the lung mask alone"),
    "nsd_tolerance_mm": ("number", "distance up to which surface counts as met in nsd, mm"),
    "volume_error_ml": ("number", "volume less the expert's, mL"),
    "n_lesions": ("count", "lesions of the reader's mask: connected voxels of 0.1 mL or more"),
    "n_lesions_false": ("count", "of these, those that the expert's mask does not touch"),
    "n_lesions_expert": ("count", "lesions of the expert's mask"),
    "n_lesions_found": ("count", "of these, those that the reader's mask touches"),
    **{f"volume_{name}_ml": ("number", f"volume in the {words}, mL")
       for name, words in REGIONS.items()},
    "po_percent": ("number", "percentage of opacity: lesion within the lung mask, percent of it"),
    "pho_percent": ("number", "of this, what is at -200 HU or above, percent of the lung mask"),
    **{f"hu_p{percent:02d}": ("number", f"HU that {percent} % of the structure's voxels lie below")
       for percent in HU_PERCENTILES},
}
"""Name -> (kind, meaning), in the order of the file."""

AGAINST_EXPERT = ("nsd_tolerance_mm", "volume_error_ml", "n_lesions", "n_lesions_false",
                  "n_lesions_expert", "n_lesions_found")
IN_REGIONS = (*(f"volume_{name}_ml" for name in REGIONS), "po_percent", "pho_percent")
ADDED = (*AGAINST_EXPERT, *IN_REGIONS, *(f"hu_p{percent:02d}" for percent in HU_PERCENTILES))
"""Columns that older files lack; they are empty there."""

KEY = ("cohort", "case_id", "reader", "structure")
STATUSES = ("ok", "failed", "unread")
_NOT_NEGATIVE = ("n_voxels", "voxel_mm3", "volume_ml", "burden_percent", "burden_in_lung_percent",
                 "hd95_mm", "n_slices", "slices_with", "seconds", "tp", "fp", "fn", "tn", "fold",
                 "nsd_tolerance_mm", "n_lesions", "n_lesions_false", "n_lesions_expert",
                 "n_lesions_found", *IN_REGIONS)
_MEASURED = ("n_voxels", "volume_ml", "burden_percent", "dice")


class MeasurementsError(ValueError):
    """A table of measurements that breaks the contract; `faults` lists all that was found."""

    def __init__(self, faults: Sequence[str], where: str = "measurements"):
        self.faults = list(faults)
        super().__init__(f"{where}: {len(self.faults)} fault(s)\n- " + "\n- ".join(self.faults))


BELOW_LIMIT = "below the limit"
"""How the note of a reading begins that was told to lie below what can be measured."""


def some(names: Sequence[Any], most: int = 5) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _keys(frame: pd.DataFrame, rows: Any) -> str:
    return some(["/".join(map(str, key)) for key in
                  frame.loc[rows, list(KEY)].itertuples(index=False, name=None)])


def _typed(frame: pd.DataFrame, faults: list[str]) -> pd.DataFrame:
    """The frame with text, nullable integers and floats; what can't be read becomes a fault."""
    typed = frame.copy()
    for name, (kind, _) in COLUMNS.items():
        values = frame[name]
        if kind == "text":
            text = values.astype("str")
            typed[name] = text.where(values.notna() & (text.str.strip() != ""))
            continue
        numbers = pd.to_numeric(values, errors="coerce").astype("Float64").astype("float64")
        wrong = values.notna() & ~np.isfinite(numbers)
        if kind == "count":
            wrong |= numbers.notna() & ((numbers != np.floor(numbers)) | (numbers.abs() > 2**53))
        if wrong.any():
            faults.append(f"column {name!r}: not a {kind} in {_keys(frame, wrong)} "
                          f"(found {some(values[wrong].tolist(), 3)})")
            numbers = numbers.mask(wrong)
        typed[name] = numbers.astype("Int64") if kind == "count" else numbers
    return typed


def check(frame: pd.DataFrame, where: str = "measurements") -> pd.DataFrame:
    """Check a table of measurements and return it with its types.

    Parameters
    ----------
    frame
        Any frame with all of `COLUMNS` but those of `ADDED`; other columns are allowed and kept.
    where
        Name for the message.

    Returns
    -------
    DataFrame
        A copy: text (empty is missing), nullable integers, floats.

    Raises
    ------
    MeasurementsError
        All faults at once: missing columns; empty or repeated keys; unknown role, structure or
        status; negative or infinite numbers; a share outside 0 to 1; a failed or unread row with
        values, an ok row without volume or burden; overlap for the expert; a volume or Dice that
        its own voxel counts contradict.
    """
    missing = [name for name in COLUMNS if name not in frame and name not in ADDED]
    if missing:
        raise MeasurementsError([f"missing column(s) {', '.join(missing)}; expected all of "
                                 f"{', '.join(COLUMNS)} (`from_wide` adds them)"], where)
    frame = frame.reset_index(drop=True)
    frame = frame.assign(**{name: None for name in ADDED if name not in frame})
    faults: list[str] = []
    typed = _typed(frame, faults)

    for name in (*KEY, "role", "status"):
        rows = typed[name].isna()
        if rows.any():
            faults.append(f"column {name!r}: empty in row(s) "
                          f"{some((np.flatnonzero(rows) + 1).tolist())}")
    repeated = typed.duplicated(list(KEY))
    if repeated.any():
        faults.append(f"key {'/'.join(KEY)} repeated: {_keys(typed, repeated)}")
    for name, known in (("role", ROLES), ("structure", STRUCTURES), ("status", STATUSES)):
        unknown = sorted(set(typed[name].dropna()) - set(known))
        if unknown:
            faults.append(f"column {name!r}: unknown {some(unknown)}; expected one of "
                          f"{', '.join(known)}")

    def fault(rows: pd.Series, message: str) -> None:
        rows = rows.fillna(False).astype(bool)
        if rows.any():
            faults.append(f"{message}: {_keys(typed, rows)}")

    for name in _NOT_NEGATIVE:
        fault(typed[name] < 0, f"column {name!r}: negative")
    for name in ("dice", "nsd"):
        fault((typed[name] < 0) | (typed[name] > 1), f"column {name!r}: outside 0 to 1")
    fault(typed["slices_with"] > typed["n_slices"], "more slices with the structure than slices")
    for status in ("failed", "unread"):
        fault((typed["status"] == status) & typed[list(_MEASURED)].notna().any(axis=1),
              f"status {status}, yet with values (leave them empty)")
    fault((typed["status"] == "ok") & typed["volume_ml"].isna() & typed["burden_percent"].isna(),
          "status ok without volume_ml and burden_percent (use status failed and a note)")
    against = ["dice", "hd95_mm", "nsd", *AGAINST_EXPERT]
    fault((typed["reader"] == "expert") & typed[against].notna().any(axis=1),
          "overlap given for the expert, who is the reference")
    volume = typed["n_voxels"].astype("float64") * typed["voxel_mm3"] / 1000.0
    fault((volume - typed["volume_ml"]).abs() > 1e-6 * volume.abs() + 1e-9,
          "volume_ml is not n_voxels x voxel_mm3 / 1000")
    tp, fp, fn = (typed[name].astype("float64") for name in ("tp", "fp", "fn"))
    size = 2 * tp + fp + fn
    fault((2 * tp / size.where(size > 0) - typed["dice"]).abs() > 1e-6,
          "dice is not 2 tp / (2 tp + fp + fn)")
    for part, whole in (("false", ""), ("found", "_expert")):
        fault(typed[f"n_lesions_{part}"] > typed[f"n_lesions{whole}"],
              f"n_lesions_{part} above n_lesions{whole}")
    fault((size == 0) & typed["dice"].notna(),
          "dice given where both masks are empty (it is undefined: leave it empty)")
    if faults:
        raise MeasurementsError(faults, where)
    return typed
