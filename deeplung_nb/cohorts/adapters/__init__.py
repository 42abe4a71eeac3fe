"""Manifests of published data sets as they lie on disk: a module for each set.

A module has the name of its set in `cohorts.toml` and two functions: `adapt(folder)` makes the
table of the manifest from the files found, `deal(table)` its folds; a set that is only ever tested
has no folds.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeplung_nb.files import atomic_paths, sha256_of


def names() -> list[str]:
    """The sets that have an adapter."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def files_of_case(folder: Path, case: str, files: Mapping[str, str]) -> dict[str, object]:
    """The columns of a case's files: paths, hashes, slices; each must be there.

    Reads headers and hashes, no voxel.

    Raises
    ------
    ValueError
        One of the files is missing, or the CT's header can't be read.
    """
    import SimpleITK as sitk

    absent = [name for name in files.values() if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"case {case!r}: {', '.join(absent)} missing in {folder}, expected "
                         f"{', '.join(files.values())}. Unpack all of the set there, or take the "
                         "case out")
    header = sitk.ImageFileReader()
    header.SetFileName(str(folder / files["image"]))
    try:
        header.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(f"case {case!r}: {folder / files['image']} can't be read as an image. Get "
                         "it again") from error
    return {**files, **{f"{name}_sha256": sha256_of(folder / path)
                        for name, path in files.items()},
            "n_slices": header.GetSize()[2], "slice_gap_mm": round(header.GetSpacing()[2], 4)}


def slices_of_folder(folder: Path, masks: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each `images/N.png`: `case_id`, paths, hashes.

    The first folder of `masks` holds the reference, each other is a key of its own.

    Raises
    ------
    ValueError
        A slice has no mask in one of the folders.
    """
    rows = []
    for path in sorted((folder / "images").glob("*.png"), key=lambda path: int(path.stem)):
        files = {name: f"{name}/{path.name}" for name in ("images", *masks)}
        for name in masks:
            if not (folder / files[name]).is_file():
                raise ValueError(f"case {path.stem!r}: {folder / files[name]} is missing, expected "
                                 "the mask of the slice. Put it there, or remove the slice")
        own, *others = masks
        rows.append({"case_id": path.stem, "image": files["images"], "mask": files[own],
                     "image_sha256": sha256_of(path), "mask_sha256": sha256_of(folder / files[own]),
                     **{name: files[name] for name in others}})
    return rows


def make_manifest(name: str, folder: str | os.PathLike, output: Path,
                  overwrite: bool = False) -> list[Path]:
    """Write the manifest of the files in `folder`, and its folds, to `output`; their paths.

    Raises
    ------
    FileExistsError
        One of them is there already, and `overwrite` was not asked for: folds are frozen.
    ValueError
        No such set, or its files are not those that are expected.
    """
    from deeplung_nb.cohorts.manifest import write_manifest
    from deeplung_nb.cohorts.splits import check_splits, write_splits

    if name not in names():
        raise ValueError(f"data set {name!r}: no adapter, expected one of {', '.join(names())}")
    adapter = importlib.import_module(f"{__name__}.{name}")
    files = [output / f"{name}.csv"]
    if hasattr(adapter, "deal"):
        files.append(output / f"splits_{name}.csv")
    there = [str(path) for path in files if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)}: there already, and the folds are frozen. "
                              "Choose another --output, or --overwrite them")
    table = adapter.adapt(folder)
    folds = check_splits(adapter.deal(table), table) if len(files) > 1 else None
    with atomic_paths(*files, replace=overwrite) as parts:
        write_manifest(table, parts[0])
        if folds is not None:
            write_splits(folds, parts[1])
    return files
