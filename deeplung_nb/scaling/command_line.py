"""The command `cohort`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

FEWEST = 3
"""Cases that an expert has read: fewer are no agreement."""


def _cohort(options: argparse.Namespace) -> None:
    import pandas as pd

    from deeplung_nb.files import write_text
    from deeplung_nb.pseudonyms import key_folder
    from deeplung_nb.runs.progress import words_for
    from deeplung_nb.scaling.engine import CohortError, make_plan, measure_cohort
    from deeplung_nb.scaling.scans import list_scans

    jobs, left_out = list_scans(options.source, options.data)
    plan = make_plan(options.output, options.checkpoint, force=options.force,
                     limit_seconds=options.limit or None, verify=options.verify,
                     dicom_seg=options.dicom_seg, dicom_sr=options.dicom_sr)
    tls = {"tls_ca_file": options.tls_ca, "tls_client_cert": options.tls_cert,
           "tls_client_key": options.tls_key}
    print(f"{len(jobs)} scans of {options.source}" + (
        f", {len(left_out)} entries left out" if left_out else ""))
    if left_out:
        listed = key_folder() / f"left_out_{plan.run_id}.csv"
        write_text(listed, pd.DataFrame(left_out, columns=["file", "why"]).to_csv(index=False))
        listed.chmod(0o600)
        print(f"names and reasons: {listed}, which is no output")
    seen = sorted({job.cohort for job in jobs if job.cohort in plan.trained_on})
    if seen:
        print(f"warning: the network was trained on {', '.join(seen)}: how well it agrees with the "
              "expert there says nothing of other patients", file=sys.stderr)
    report = measure_cohort(
        jobs, plan, workers=options.workers, scheduler=options.scheduler,
        security={name: str(path) for name, path in tls.items() if path is not None} or None,
        memory_gb=options.memory)
    n_done = report.counts.get("done", 0)
    print(f"{n_done} measured, {report.counts.get('kept', 0)} kept from before, "
          f"{report.n_failed} failed, in {words_for(report.seconds)} by {report.workers}")
    if n_done and report.seconds > 1:
        print(f"{3600 * n_done / report.seconds:,.0f} scans an hour")
    for kind, n in report.counts.items():
        if kind not in ("done", "kept"):
            print(f"  {n} {kind}: see failures.csv")
    for path in report.files:
        print(path)
    _report_agreement(Path(options.output), any(job.mask for job in jobs))
    if report.n_failed == report.n_scans:
        raise CohortError("no scan could be measured: failures.csv says why")


def _report_agreement(output: Path, has_experts: bool) -> None:
    """Where experts have read the scans, how well they and the network agree."""
    from deeplung_nb import measurements
    from deeplung_nb.files import write_text
    from deeplung_nb.report.digest import write_digest

    if not has_experts:
        return
    table = measurements.read(output / "measurements.csv")
    read = table[(table["reader"] == "expert") & (table["status"] == "ok")]
    if len(set(read["case_id"])) < FEWEST:
        return
    write_text(output / "agreement.md", write_digest(table) + "\n")
    print(f"{output / 'agreement.md'}\nexplore it with: deeplung-nb dashboard "
          f"{output / 'measurements.csv'}")


def add_cohort(commands: Any) -> None:
    """The command `cohort`."""
    command = commands.add_parser(
        "cohort", help="segment and measure many CTs, by several processes or a cluster",
        description="Measure every CT of a manifest, of a CSV with a column of paths, or of a "
                    "folder: a folder of results for each, and measurements.csv, "
                    "measurements.parquet and failures.csv for all. What is done is kept: the same "
                    "command goes on after any interruption, and does again only what has changed. "
                    "Not a medical device.")
    command.add_argument("source", type=Path, help="manifest, CSV with a column 'image', or folder")
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument("--data", type=Path, help="where the paths of a manifest or list start "
                         "(default: DEEPLUNG_DATA, or its own folder)")
    command.add_argument("--workers", type=int, help="processes of one thread each (default: as "
                         "many as cores and memory allow; 0: one after the other, without Dask)")
    command.add_argument("--memory", type=float, metavar="GB", help="of a worker; more ends it "
                         "(default: an equal share)")
    command.add_argument("--limit", type=float, default=3600, metavar="SECONDS",
                         help="longest time for a scan (default 3600; 0: none)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that is there, "
                         "as tcp://10.0.0.1:8786 (docs/scale.md)")
    for name, what in (("ca", "certificate authority"), ("cert", "certificate"), ("key", "key")):
        command.add_argument(f"--tls-{name}", type=Path, metavar="FILE",
                             help=f"{what} for a scheduler that asks for TLS")
    command.add_argument("--checkpoint", type=Path, action="append", help="as of segment")
    command.add_argument("--verify", action="store_true", help="compare the bytes of all scans "
                         "that are done, not only size and time of their files")
    command.add_argument("--dicom-seg", action="store_true", help="as of segment")
    command.add_argument("--dicom-sr", action="store_true", help="as of segment")
    command.add_argument("--force", action="store_true", help="as of segment")
    command.set_defaults(run=_cohort)
