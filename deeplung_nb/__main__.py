"""Command line: `python -m deeplung_nb <command>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _reproduce(options: argparse.Namespace) -> None:
    from deeplung_nb.reproduce import reproduce

    reproduce(options.profile, options.data, options.results)


def _segment(options: argparse.Namespace) -> None:
    from deeplung_nb.learning.segment import segment_file

    segment_file(options.scan, options.output, checkpoints=options.checkpoint,
                 lung_mask=options.lung_mask, case_id=options.case_id)


def _digest(options: argparse.Namespace) -> None:
    from deeplung_nb import measurements
    from deeplung_nb.report.digest import write_digest

    path = options.run_folder
    print(write_digest(measurements.read(path / "measurements.csv" if path.is_dir() else path)))


def _manifest(options: argparse.Namespace) -> None:
    from deeplung_nb.cohorts import public
    from deeplung_nb.runs import manifest_folder

    folder = manifest_folder()
    manifest, splits = folder / "medseg2.csv", folder / "splits_medseg2.csv"
    public.write_medseg2_manifest(options.folder, manifest, splits)
    print(f"wrote {manifest} and {splits}")


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    top = argparse.ArgumentParser(
        prog="python -m deeplung_nb",
        description="COVID-19 pneumonia on chest CT: segment, measure, compare with experts.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="<command>")

    command = commands.add_parser(
        "segment", help="segment one CT: a mask on its own grid and a table of volumes")
    command.add_argument("scan", type=Path, help="NIfTI, NRRD or MetaImage file, or DICOM folder")
    command.add_argument("--output", type=Path, required=True, help="folder for mask and table")
    command.add_argument("--checkpoint", type=Path, action="append",
                         help="checkpoint.pt of a fold; repeat it to average several "
                              "(default: the newest run in results/)")
    command.add_argument("--lung-mask", type=Path, help="lung mask on the scan's grid "
                         "(default: the built-in lung segmenter)")
    command.add_argument("--case-id", help="name of the outputs (default: the file's name)")
    command.set_defaults(run=_segment)

    command = commands.add_parser("reproduce", help="run notebooks 00-09 and write the report")
    command.add_argument("--profile", help="quick (default), public, paper, or a .json file")
    command.add_argument("--data", help="folder of the CTs (profiles public and paper)")
    command.add_argument("--results", help="folder for runs (default: results/)")
    command.set_defaults(run=_reproduce)

    command = commands.add_parser("digest", help="print a run's main numbers as Markdown")
    command.add_argument("run_folder", type=Path, help="results/<run>, or a measurements.csv")
    command.set_defaults(run=_digest)

    command = commands.add_parser("manifest", help="write a manifest of a data set on disk")
    command.add_argument("dataset", choices=("medseg2",))
    command.add_argument("folder", type=Path)
    command.set_defaults(run=_manifest)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 with one clear message on standard error."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished work is kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
