"""Command line: `deeplung-nb <command>`, or `python -m deeplung_nb <command>`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplung_nb import __version__, how_to_install
from deeplung_nb.cohorts.command_line import add_fetch, add_manifest
from deeplung_nb.files import explain
from deeplung_nb.learning.command_line import add_ablate, add_train, add_train_packaged
from deeplung_nb.scaling.command_line import add_cohort

# Read when torch is loaded: its threads then sleep while ours (network.fused) compute.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _reproduce(options: argparse.Namespace) -> None:
    from deeplung_nb.reproduce import reproduce

    reproduce(options.profile, options.data, options.results, options.workers)


def _segment(options: argparse.Namespace) -> None:
    if options.series == "list":
        from deeplung_nb.imaging.dicom import list_series

        print("\n".join(list_series(options.scan)))
        return
    if options.output is None:
        raise ValueError("--output is missing, expected the folder for mask and table")
    from deeplung_nb.imaging.io import case_name
    from deeplung_nb.reading.results import segment_file

    page = None
    if options.report:
        from deeplung_nb.report.patient_page import make_page as page

    result, outputs = segment_file(
        options.scan, options.output, checkpoints=options.checkpoint, lung_mask=options.lung_mask,
        lobe_mask=options.lobe_mask, lobe_codes=tuple(options.lobe_codes),
        case_id=options.case_id, series=options.series, geometry=options.geometry,
        overwrite=options.overwrite, force=options.force, dicom_seg=options.dicom_seg,
        dicom_sr=options.dicom_sr, page=page)
    network = result.provenance["network"]
    print(f"scan     {result.scan!r}\nnetwork  {network['name']}, trained on "
          f"{network['trained_on']}\n         SHA-256 {network['sha256'][:16]}…")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for row in result.table.itertuples():
        share = f"{row.burden_percent:7.1f} % of lung" if row.burden_percent >= 0 else ""
        print(f"{row.structure:<13}{row.volume_ml:9.1f} mL{share}")
    if (likely := result.provenance["likely_lesion"]) is not None:
        from deeplung_nb.reading.uncertainty import likely_words

        print(likely_words(likely))
    if options.case_id is None:
        from deeplung_nb.pseudonyms import remember

        if result.case_id != case_name(options.scan):
            listed = remember(result.case_id, str(options.scan.resolve()))
            print(f"{result.case_id} is a made name: what it stands for is in {listed}")
        else:
            print("the outputs are named after the file: if that names a patient, give --case-id")
    for name, path in outputs.files.items():
        print(f"{name:<11}{path}")


def _followup(options: argparse.Namespace) -> None:
    from datetime import date

    from deeplung_nb.reading.results import follow_files
    from deeplung_nb.report.followup_page import make_followup_page

    days = None
    if options.dates:
        try:
            days = [float(date.fromisoformat(text).toordinal()) for text in options.dates]
        except ValueError as error:
            raise ValueError(f"--dates {' '.join(options.dates)}: expected a date for each scan, "
                             f"as 2020-04-01 ({error})") from None
    found, files = follow_files(options.scans, options.output, options.case_id, days=days,
                                smallest_factor=options.smallest_factor,
                                page=make_followup_page, overwrite=options.overwrite,
                                force=options.force, checkpoints=options.checkpoint)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(found.table.round(2).to_string(index=False))
    print(f"a change counts from a factor of {found.smallest_factor:.2f} on ({found.because})")
    print("\n".join(map(str, files)))


def _compare(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from deeplung_nb import measurements
    from deeplung_nb.files import write_text
    from deeplung_nb.report.explore import answer, choosable, first_question
    from deeplung_nb.report.export import export

    chosen = {name: given for name in ("reference", "test")
              if (given := getattr(options, name)) is not None}
    if len(chosen) == 1:
        raise ValueError("--reference and --test: give both, or neither")
    given = {name: said for name in ("unit", "value", "decimal", "case_id", "patient_id", "below")
             if (said := getattr(options, name)) is not None}
    if options.reading is not None:
        table = measurements.read_table(options.table, reading=options.reading,
                                        reader=options.reader, **given)
        source = table.attrs["made_by"]
    else:
        table, source = measurements.read_readings(
            options.table, {name: name for name in chosen.values()} or None, **given)
    pair = (chosen["reference"], chosen["test"]) if chosen else None
    question = replace(first_question(table, options.limits, pair), margin=options.margin,
                       confidence=options.confidence)
    question = replace(question, **{name: said for name in ("structure", "value")
                                    if (said := getattr(options, name)) is not None})
    if options.only:
        wanted = dict(text.partition("=")[::2] for text in options.only)
        absent = [name for name in wanted if name not in table]
        if absent:
            raise ValueError(f"--only {', '.join(options.only)}: expected COLUMN=VALUE, with a "
                             f"column of {', '.join(choosable(table)) or 'cases (here: none)'}")
        question = replace(question, where=tuple(
            (name, value) for name, value in wanted.items() if value != "all"))
    found = answer(table, question)
    page = None
    if options.page:  # before anything is written
        from deeplung_nb.widgets.explorer import AgreementExplorer
        from deeplung_nb.widgets.page import page_of

        page = page_of(AgreementExplorer(table, source=source, question=question))
    files = export(found, options.output, question.code(source))
    if page is not None:
        files.append(files[0].with_suffix(".html"))
        write_text(files[-1], page)
    print(found.printed.to_string(index=False), found.text, *found.notes, sep="\n\n")
    print("\n".join(map(str, files)))


def _notebooks(options: argparse.Namespace) -> None:
    from deeplung_nb.runs.resources import lay_out

    laid = lay_out(options.folder)
    print(f"{len(laid)} files and an example run are in {options.folder}. Begin with\n\n"
          f"    cd {shlex.quote(str(options.folder))} && jupyter lab 00_start_here.ipynb\n\n"
          "The example run is read with DEEPLUNG_RUN=results/example, and needs no torch")


def _digest(options: argparse.Namespace) -> None:
    from deeplung_nb import measurements
    from deeplung_nb.report.digest import write_digest
    from deeplung_nb.runs import find_run, read_run

    path = find_run(options.run_folder)
    limits = read_run(path).config.limits if (path / "run.json").exists() else "auto"
    table = measurements.read(path / "measurements.csv" if path.is_dir() else path)
    print(write_digest(table, limits=limits))


def _benchmark(options: argparse.Namespace) -> None:
    if options.cohort:
        from deeplung_nb.scaling.benchmark import cost_of_handing_out, what_workers_bring

        for name, value in cost_of_handing_out().items():
            print(f"{name:<18}{value:10,.1f}")
        print(what_workers_bring().round(1).to_string(index=False))
        return
    if options.study:
        from deeplung_nb.scaling.benchmark import what_training_gains

        print(what_training_gains().round(1).to_string(index=False))
        return
    from deeplung_nb.learning.benchmark import benchmark

    shown = ["task", "model", "way", "n_slices", "seconds_median", "seconds_min", "seconds_max",
             "peak_memory_gb"]
    frame = benchmark(options.output, threads=options.threads, repeats=options.repeats,
                      n_slices=options.slices, training=options.training)
    print(frame[shown].round(3).to_string(index=False))
    print(f"wrote {options.output}")


def _dashboard(options: argparse.Namespace) -> None:
    from deeplung_nb.widgets.dashboard import serve

    serve(options.source, options.port, options.unit)


def _add_segment(commands: Any) -> None:
    command = commands.add_parser(
        "segment", help="segment one CT: a mask on its own grid and a table of volumes",
        description="Write <case>_lesions.nii.gz, <case>_measurements.csv, <case>_preview.png and "
                    "<case>_provenance.json, all or none. A scan that is damaged or no plausible "
                    "chest CT is refused. Not a medical device.")
    command.add_argument("scan", type=Path, help="NIfTI, NRRD or MetaImage file, or DICOM folder")
    command.add_argument("--output", type=Path,
                         help="folder for mask, table and provenance (not with --series list)")
    command.add_argument("--checkpoint", type=Path, action="append",
                         help="checkpoint.pt of a fold; repeat it to average several "
                              "(default: the packaged network)")
    command.add_argument("--lung-mask", type=Path, help="lung mask on the scan's grid "
                         "(default: as the network marks them)")
    command.add_argument("--lobe-mask", type=Path, help="lobes on the scan's grid, as another tool "
                         "marked them: the table then has each lobe and the severity score")
    command.add_argument("--lobe-codes", type=int, nargs=5, default=[3, 4, 5, 1, 2],
                         metavar=("RU", "RM", "RL", "LU", "LL"), help="that tool's codes of right "
                         "upper, middle, lower, left upper, lower lobe (default: lungmask's)")
    command.add_argument("--case-id", help="name of the outputs (default: an image file's name; of "
                         "a DICOM folder, whose name may be a patient's, a made one)")
    command.add_argument("--series", metavar="NUMBER|UID|list", help="which series of a DICOM "
                         "folder with several; 'list' shows them")
    command.add_argument("--geometry", choices=("sform", "qform"), help="which of a NIfTI file's "
                         "two statements of its place is right, where they disagree")
    command.add_argument("--report", action="store_true", help="a page of it too: pictures, "
                         "volumes, warnings, what made it; prints on two A4 pages")
    command.add_argument("--dicom-seg", action="store_true",
                         help="a DICOM Segmentation beside its series (DICOM scans only)")
    command.add_argument("--dicom-sr", action="store_true", help="its measurements as a structured "
                         "report too (TID 1500; writes the Segmentation it refers to)")
    command.add_argument("--overwrite", action="store_true",
                         help="replace the results of an earlier call (never an input)")
    command.add_argument("--force", action="store_true", help="go on with a scan that is no "
                         "plausible chest CT, resample a series with gaps, tilt or doubled slices; "
                         "the results then say so")
    command.set_defaults(run=_segment)


def _add_followup(commands: Any) -> None:
    command = commands.add_parser(
        "followup", help="several CTs of one patient: what changed beyond the error",
        description="Segment the scans of one patient, and write <case>_followup.csv and a page: "
                    "changes, each beside the smallest that can be detected, volumes over time, "
                    "and the same heights of the lungs side by side. Not a medical device.")
    command.add_argument("scans", type=Path, nargs="+", help="two or more CTs, in order")
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument("--case-id", required=True, help="name of the patient's outputs; the "
                         "scans' own are <case>-1, <case>-2, ...")
    command.add_argument("--dates", nargs="+", metavar="YYYY-MM-DD", help="of the scans: the page "
                         "counts days from the first and names no date")
    command.add_argument("--smallest-factor", type=float, help="by which a volume must change to "
                         "be beyond the error, from readings of your own (notebook 11); default: "
                         "from this network's errors")
    command.add_argument("--checkpoint", type=Path, action="append", help="as of segment")
    command.add_argument("--overwrite", action="store_true",
                         help="replace the results of an earlier call (never an input)")
    command.add_argument("--force", action="store_true", help="as of segment")
    command.set_defaults(run=_followup)


def _add_reproduce(commands: Any) -> None:
    command = commands.add_parser("reproduce", help="run the notebooks and write the report")
    command.add_argument("--profile", help="quick (default), public, rehearsal, paper, or a "
                         ".json file")
    command.add_argument("--data", help="folder of the CTs (profiles public and paper)")
    command.add_argument("--results", help="folder for runs (default: results/)")
    command.add_argument("--workers", type=int, metavar="N", help="processes that train folds and "
                         "measure cases side by side (default: 1); the results are the same")
    command.set_defaults(run=_reproduce)


def _add_compare(commands: Any) -> None:
    command = commands.add_parser(
        "compare", help="two readers of a table: every statistic, figure, paragraph",
        description="Compare two readers of any CSV or Excel file of readings, and write figure "
                    "(PDF, SVG, PNG), table (CSV, LaTeX, Word), Methods and Results with their "
                    "sources, and the code that makes them again. Nothing is replaced; no CT and "
                    "no torch are needed.")
    command.add_argument("table", type=Path, help="one row a case and one column a reader, one row "
                         "a case and reader (--reading), or a measurements.csv")
    command.add_argument("--output", type=Path, required=True, help="folder of the files")
    command.add_argument("--reference", help="the reader compared with: its column, or in a "
                         "table of one row a reading its name (default: of two numeric columns the "
                         "first, or 'expert')")
    command.add_argument("--test", help="the reader compared: differences are test - reference")
    command.add_argument("--reading", metavar="COLUMN", help="of one row a case and reader: where "
                         "the numbers are")
    command.add_argument("--reader", metavar="COLUMN", default="reader", help="and who read "
                         "(default: reader)")
    command.add_argument("--value", choices=("volume_ml", "burden_percent"),
                         help="what was read (default: volume_ml)")
    command.add_argument("--unit", help="of volumes: mL, cm3, mm3 or L (a measurements.csv has mL)")
    command.add_argument("--structure", help="of a table with several: lesion, ggo, ...")
    command.add_argument("--only", metavar="COLUMN=VALUE", action="append", help="cases of this "
                         "alone, as role=external; role=all: of every role together")
    command.add_argument("--case-id", metavar="COLUMN", help="the case's (default: case_id, else "
                         "rows are numbered, where one is a case)")
    command.add_argument("--patient-id", metavar="COLUMN", help="the patient's, who may have "
                         "several cases (default: a column called so)")
    command.add_argument("--decimal", choices=(".", ","), help="default: as the numbers say")
    command.add_argument("--below", choices=("zero", "half", "limit"), help="what '<0.5' counts")
    command.add_argument("--limits", default="auto", help="of agreement, declared beforehand: "
                         "constant, ratio, regression, quantile (default: as the data say)")
    command.add_argument("--margin", type=float, help="of equivalence, in the unit of the table "
                         "(volumes: mL), declared before the data were seen")
    command.add_argument("--confidence", type=float, default=0.95, help="default: 0.95")
    command.add_argument("--page", action="store_true", help="the explorer too, as a page that "
                         "lives in any browser, offline")
    command.set_defaults(run=_compare)


def _add_notebooks(commands: Any) -> None:
    command = commands.add_parser(
        "notebooks", help="lay out the notebooks and the example run in a folder",
        description="Copy the notebooks, and the example run that they can be read with, into a "
                    "folder of your own; nothing there is replaced.")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=_notebooks)


def _add_digest(commands: Any) -> None:
    command = commands.add_parser(
        "digest", help="print a run's main numbers as Markdown",
        description="Volumes and Dice by case (of few), then agreement by role, as Markdown.")
    command.add_argument("run_folder", type=Path, help="results/<run>, or a measurements.csv")
    command.set_defaults(run=_digest)


def _add_dashboard(commands: Any) -> None:
    command = commands.add_parser(
        "dashboard", help="look at a run or a table of readings in a browser",
        description="Serve explorer, cohort browser and viewer with Voila, to this machine only; "
                    "the address with its token is printed. No torch is needed.")
    command.add_argument("source", type=Path, help="results/<run>, a measurements.csv, or a CSV or "
                         "Excel file with one row a case and one column a reader")
    command.add_argument("--unit", help="of the volumes in such a table: mL, cm3, mm3 or L")
    command.add_argument("--port", type=int, help="default: any free one")
    command.set_defaults(run=_dashboard)


def _add_benchmark(commands: Any) -> None:
    command = commands.add_parser(
        "benchmark", help="how long everything takes on this machine",
        description="Time networks, files and training steps in turns, each one's memory in a "
                    "process of its own, and what the machine can do at most; some ten minutes. "
                    "Close other programs: only ratios within one run mean much.")
    command.add_argument("--output", type=Path, default=Path("timings.csv"),
                         help="CSV to write (default: timings.csv)")
    command.add_argument("--threads", type=int, help="default: as many as torch chooses")
    command.add_argument("--repeats", type=int, default=3,
                         help="rounds after the first (default 3)")
    command.add_argument("--slices", type=int, nargs="+", default=[16, 120, 500],
                         help="lengths of a scan (default: 16 120 500)")
    command.add_argument("--training", type=int, nargs="*", default=[8, 32],
                         help="slices of a training step (default: 8 32)")
    command.add_argument("--cohort", action="store_true", help="instead: what handing out 10,000 "
                         "scans costs, and what a second worker brings")
    command.add_argument("--study", action="store_true", help="instead: what folds side by side, "
                         "and a team of two for each, bring")
    command.set_defaults(run=_benchmark)


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    top = argparse.ArgumentParser(
        prog="deeplung-nb",
        description="COVID-19 pneumonia on chest CT: segment, measure, compare with experts.",
    )
    top.add_argument("--version", action="version", version=f"deeplung_nb {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="<command>")
    for add in (_add_segment, add_cohort, _add_followup, _add_reproduce, _add_compare,
                _add_notebooks, _add_digest, _add_dashboard, _add_benchmark, add_manifest,
                add_fetch, add_train, add_train_packaged, add_ablate):
        add(commands)
    return top


def _say_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A line as those of errors: where in our code a table was found odd tells nobody anything."""
    print(f"warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 with one clear message on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a narrow locale must not end finished work
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            options.run(options)
    except ModuleNotFoundError as error:
        print(f"error: {error.name or error} is not installed. Install it with: "
              f"{how_to_install(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"error: {error}" if error.args else "error: memory ran out. Close other programs, "
              "or use a machine with more of it", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished work is kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
