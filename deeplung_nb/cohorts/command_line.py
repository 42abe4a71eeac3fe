"""The commands `fetch` and `manifest`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from deeplung_nb.cohorts.adapters import names


def _fetch(options: argparse.Namespace) -> None:
    from deeplung_nb.cohorts.adapters import make_manifest
    from deeplung_nb.cohorts.fetch import FetchError, fetch, published
    from deeplung_nb.runs.registry import complete_manifests, own_manifest_folder

    known = published()
    if options.dataset not in known:
        raise FetchError(f"data set {options.dataset!r}: expected one of {', '.join(known)}")
    print(known[options.dataset].terms())
    if known[options.dataset].files and not options.agree:
        if not sys.stdin.isatty():
            raise FetchError("nobody has agreed to these terms: read them, and say --agree")
        if input(f"Type {options.dataset} to agree to these terms: ").strip() != options.dataset:
            raise FetchError("not agreed: nothing was fetched")
    folder = options.folder or Path("data") / options.dataset
    files = fetch(options.dataset, folder)
    print(f"{len(files)} files are in {folder}")
    if options.dataset in names():
        output = options.output or own_manifest_folder()
        try:
            made = make_manifest(options.dataset, folder, output)
        except FileExistsError as error:  # the frozen one stays
            print(error)
        else:
            if options.output is None:
                complete_manifests(output)
            print(f"wrote {' and '.join(map(str, made))}")


def _manifest(options: argparse.Namespace) -> None:
    from deeplung_nb.cohorts.adapters import make_manifest
    from deeplung_nb.runs.registry import complete_manifests, own_manifest_folder

    output = options.output or own_manifest_folder()
    if options.folder is None:
        if options.dataset in names():
            raise ValueError(f"the folder of {options.dataset} is missing, expected manifest "
                             f"{options.dataset} <folder>")
        _manifest_of_tree(Path(options.dataset), output, options)
        return
    files = make_manifest(options.dataset, options.folder, output, options.overwrite)
    if options.output is None:
        complete_manifests(output)
    print(f"wrote {' and '.join(map(str, files))}")


def _manifest_of_tree(folder: Path, output: Path, options: argparse.Namespace) -> None:
    from collections import Counter

    from deeplung_nb.cohorts.tree import write_tree

    tree, files, listed = write_tree(folder, output, options.role, cohort=options.cohort,
                                     overwrite=options.overwrite)
    excluded = Counter(row["exclude_reason"] for row in tree.rows if row["exclude"])
    print(f"{len(tree.rows) - excluded.total()} cases of "
          f"{len({row['patient_id'] for row in tree.rows})} patients, {excluded.total()} more that "
          "are not used:")
    for why, n in excluded.most_common():
        print(f"  {n}: {why}")
    print(f"wrote {' and '.join(map(str, files))}, which name nobody\n"
          f"{len(tree.left_out)} files and series are in no row: names and reasons are in "
          f"{listed}, with the list of made names")


def add_fetch(commands: Any) -> None:
    """The command `fetch`."""
    command = commands.add_parser(
        "fetch", help="download a published data set, after a look at its terms",
        description="Show the terms of a data set, download its files when you agree (a broken "
                    "download goes on), check them against their published hashes, unpack them "
                    "safely and write the manifest. Where registration is needed: what to get "
                    "and where to put it. This is the one command that uses the internet.")
    command.add_argument("dataset", help="name in data_manifests/cohorts.toml, as covid_ct_seg_20")
    command.add_argument("--folder", type=Path, help="to download to (default: data/<name>)")
    command.add_argument("--agree", action="store_true", help="you have read the terms and agree")
    command.add_argument("--output", type=Path, help="folder of the manifest")
    command.set_defaults(run=_fetch)


def add_manifest(commands: Any) -> None:
    """The command `manifest`."""
    command = commands.add_parser(
        "manifest", help="write a manifest of a data set, or of any folder with CTs",
        description="Write <set>.csv and its frozen folds splits_<set>.csv, from the files found. "
                    "Of any folder of your own: a row for each CT that can be read (of a study's "
                    "series the one with the most slices), with made names for patients and "
                    "files, and a list of what can't be used and why.")
    command.add_argument("dataset", metavar="set|folder",
                         help=f"{', '.join(names())} and its folder, or a folder of your own alone")
    command.add_argument("folder", type=Path, nargs="?", help="the data set's folder")
    command.add_argument("--role", choices=("cv", "external"), default="external",
                         help="what your cases serve for (default: external)")
    command.add_argument("--cohort", help="their name (default: site_training, site_external)")
    command.add_argument("--output", type=Path, help="folder to write to (default: data_manifests)")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")
    command.set_defaults(run=_manifest)
