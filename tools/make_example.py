"""Record a synthetic run as results/example: .venv/bin/python tools/make_example.py RUN

What notebooks 07 to 10 and the exercises need and cannot make without torch: readings, times,
learning histories, a thumbnail of each case, and the masks of those that the figures' rules choose.
"""

import shutil
import sys
from pathlib import Path

from deeplung_nb import measurements
from deeplung_nb.report.panels import choose_case
from deeplung_nb.report.thumbnails import thumbnail_of
from deeplung_nb.runs import read_run

TARGET = Path(__file__).resolve().parent.parent / "results" / "example"
RULES = ("median_ggo", "median_both", "worst", "best", "median")
MOST_BYTES = 400_000


def main(source: Path) -> None:
    """Copy the parts of one run; refuse real patients and more than 400 kB."""
    run = read_run(source)
    if not run.synthetic:
        sys.exit(f"{source}: a run of real cases; only synthetic ones may be recorded")
    measured = measurements.read(run.measurements_csv)
    chosen = {(case.cohort, case.case_id) for case in
              (choose_case(measured, rule, role="cv") for rule in RULES)}
    parts = ["run.json", "measurements.csv", "timings.csv",
             *sorted(str(path.relative_to(source)) for path in source.glob("facts/*.json")),
             *sorted(str(path.relative_to(source)) for path in source.rglob("history.csv")),
             *(f"masks/{cohort}/{case_id}.nii.gz" for cohort, case_id in sorted(chosen))]
    parts += [f"thumbnails/{row.cohort}/{row.case_id}.jpg" for row in
              measured[["cohort", "case_id"]].drop_duplicates().itertuples()
              if thumbnail_of(run, row.cohort, row.case_id)]
    size = sum((source / part).stat().st_size for part in parts)
    if size > MOST_BYTES:
        sys.exit(f"{source}: {size} bytes, allowed are {MOST_BYTES}")
    shutil.rmtree(TARGET, ignore_errors=True)
    for part in parts:
        (TARGET / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part, TARGET / part)
    print(f"{TARGET}: {len(parts)} files, {size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
