"""The tables of a cohort, made of the records of its scans: the same bytes in whatever order.

`measurements.csv` and `.parquet` hold the same rows; `failures.csv` the scans that failed, and why.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.files import atomic_path
from deeplung_nb.measurements.contract import COLUMNS
from deeplung_nb.scaling.record import Outcome, Plan, failed_rows, read_record
from deeplung_nb.scaling.scans import ScanJob
from deeplung_nb.scaling.tally import WELL

AT_ONCE = 250
"""Scans whose rows are in memory at once, and in a row group of the Parquet file."""


def _found(plan: Plan, job: ScanJob, failures: Mapping[str, Outcome]
           ) -> tuple[str, str, list[dict[str, Any]]]:
    """Kind, reason and rows of a scan; one that could leave no record is a failure all the same."""
    record = read_record(plan, job)
    if record is not None:
        return record["kind"], record["reason"], record["rows"]
    outcome = failures.get(job.case_id, Outcome(job.case_id, "error", "it left no record"))
    return outcome.kind, outcome.reason, failed_rows(plan, job, outcome.reason)


def _parts(plan: Plan, jobs: Sequence[ScanJob], failures: Mapping[str, Outcome]
           ) -> Iterator[pd.DataFrame]:
    for start in range(0, len(jobs), AT_ONCE):
        lines = [{**line, "run_id": plan.run_id} for job in jobs[start:start + AT_ONCE]
                 for line in _found(plan, job, failures)[2]]
        yield pd.DataFrame(lines).reindex(columns=list(COLUMNS))


def write_tables(plan: Plan, jobs: Sequence[ScanJob], failures: Mapping[str, Outcome]
                 ) -> list[Path]:
    """Write the cohort's tables beside its scans; their paths.

    Records of another network, program or list are not taken: with the failures of this call, by
    case id, each scan has its rows.
    """
    output = Path(plan.output)
    (output / "agreement.md").unlink(missing_ok=True)  # of other tables
    table = measurements.write_parts(_parts(plan, jobs, failures), output / "measurements.csv")
    files = [table, _write_parquet(table), output / "failures.csv"]
    with atomic_path(files[-1]) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("cohort", "case_id", "kind", "reason"))
        for job in jobs:
            kind, reason, _ = _found(plan, job, failures)
            if kind not in WELL:
                writer.writerow((job.cohort, job.case_id, kind, reason))
    return [path for path in files if path is not None]


def _write_parquet(table: Path) -> Path | None:
    """The rows of a measurements.csv as Parquet, a part at a time; None without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        table.with_suffix(".parquet").unlink(missing_ok=True)
        return None
    types = {"text": pa.string(), "count": pa.int64(), "number": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, (kind, _) in COLUMNS.items()])
    path = table.with_suffix(".parquet")
    with atomic_path(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        reader = pd.read_csv(table, dtype={name: {"text": str, "count": "Int64"}.get(kind, float)
                                           for name, (kind, _) in COLUMNS.items()},
                             chunksize=AT_ONCE * 4, keep_default_na=False, na_values=[""])
        for rows in reader:
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
    return path

