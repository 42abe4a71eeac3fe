"""What a segmentation leaves: its files, all or none, and the command that makes them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from deeplung_nb import __version__
from deeplung_nb.files import (
    atomic_paths,
    check_name,
    check_writable,
    recover,
    remove_leftovers,
    safe_name,
    sha256_of,
    write_text,
)
from deeplung_nb.imaging.dicom_objects import (
    Algorithm,
    make_report,
    make_segmentation,
    series_datasets,
)
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.integrity import require_plain_file
from deeplung_nb.imaging.io import case_name, read_scan, write_mask
from deeplung_nb.imaging.regions import LOBE_CODES, read_lobes
from deeplung_nb.reading.followup import FollowUp, detectable_factor, follow
from deeplung_nb.reading.names import default_case_id
from deeplung_nb.reading.preview import draw_preview
from deeplung_nb.reading.segment import Segmentation, Segmenter, default_checkpoints

ENDINGS = {"mask": "lesions.nii.gz", "table": "measurements.csv", "provenance": "provenance.json",
           "preview": "preview.png", "page": "page.html", "dicom_seg": "seg.dcm",
           "dicom_sr": "sr.dcm"}
ALWAYS = ("mask", "table", "provenance", "preview")


@dataclass(frozen=True)
class Outputs:
    """The files that one segmentation leaves, together or not at all; None: not asked for."""

    mask: Path
    table: Path
    provenance: Path
    preview: Path
    page: Path | None = None
    dicom_seg: Path | None = None
    dicom_sr: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Those that are written, by name."""
        return {name: path for name, path in vars(self).items() if path is not None}

    def __iter__(self) -> Iterator[Path]:
        return iter(self.files.values())


def plan_outputs(folder: Path, case_id: str, inputs: Sequence[Path],
                 overwrite: bool = False, more: Collection[str] = ()) -> Outputs:
    """Where the results will lie, after every check that can be made before the work.

    Parameters
    ----------
    more
        Of `page`, `dicom_seg` and `dicom_sr`: what is written besides.

    Raises
    ------
    ValueError
        The id is no safe name; an output would replace an input; `folder` lies in a DICOM folder.
    FileExistsError
        An output is there already, and `overwrite` was not asked for.
    OSError
        The folder can't be written to.
    """
    check_name(case_id)
    recover(folder)  # what a killed call had begun to place
    outputs = Outputs(**{name: folder / f"{case_id}_{ending}" for name, ending in ENDINGS.items()
                         if name in ALWAYS or name in more})
    for source in inputs:
        if not source.is_dir() and source.exists():
            require_plain_file(source, case_id)
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{folder}: lies in the folder of the scan ({source}), whose files "
                             "are the scan. Choose an --output beside it")
        for path in outputs:
            if path.exists() and source.exists() and os.path.samefile(path, source):
                raise ValueError(f"{path}: is one of the inputs, which are never replaced. Choose "
                                 "another --output or --case-id")
    there = [path.name for path in outputs if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{folder}: {', '.join(there)} is there already. Choose another "
                              "--output or --case-id, or --overwrite it")
    check_writable(folder)
    return outputs


def write_segmentation(result: Segmentation, to: str | os.PathLike | Outputs,
                       overwrite: bool = False, *, dicom_seg: bool = False, dicom_sr: bool = False,
                       page: Callable[[Segmentation], str] | None = None) -> Outputs:
    """Write mask, table, provenance and preview, and what else is asked for, all or none.

    The provenance holds the hashes of the others, so that files of two calls are known.

    Parameters
    ----------
    to
        A folder, or what `plan_outputs` has planned (then that decides what is written).
    overwrite
        Whether results of an earlier call may be replaced. The scan never is.
    dicom_seg, dicom_sr
        Whether a DICOM Segmentation, and a structured report of it, is written besides.
    page
        Makes a page of the result, as `report.patient_page.make_page`.

    Raises
    ------
    FileExistsError
        They are there, or another call has written them meanwhile, and `overwrite` was not asked
        for.
    ScanError
        DICOM was asked for, and the scan was read from no DICOM series, or resampled.
    ValueError, OSError
        As `plan_outputs`.
    """
    outputs = to if isinstance(to, Outputs) else plan_outputs(
        Path(to), safe_name(result.case_id),
        [Path(result.scan.source)] if result.scan.source else [], overwrite,
        _asked_for(page, dicom_seg, dicom_sr))
    writers: dict[str, Callable[[Path], Any]] = {
        "mask": lambda part: write_mask(result.mask, part, _note(result)),
        "table": lambda part: write_text(part, result.table.to_csv(index=False)),
        "preview": lambda part: _preview(result).save(part, format="PNG", optimize=False),
    }
    if outputs.page is not None and page is not None:
        writers["page"] = lambda part: write_text(part, page(result))
    if outputs.dicom_seg is not None:
        objects = dicom_objects_of(result)
        writers["dicom_seg"] = objects["dicom_seg"].save_as
        writers["dicom_sr"] = objects["dicom_sr"].save_as
    files = outputs.files
    with atomic_paths(*files.values(), replace=overwrite) as parts:
        placed = dict(zip(files, parts, strict=True))
        for name, part in placed.items():
            if name != "provenance":
                writers[name](part)
        written = {files[name].name: sha256_of(part) for name, part in placed.items()
                   if name != "provenance"}
        record = {**result.provenance, "outputs": written}
        write_text(placed["provenance"], json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return outputs


def _asked_for(page: object, dicom_seg: bool, dicom_sr: bool) -> list[str]:
    """What is written besides; a report refers to a Segmentation, which is then written too."""
    wanted = {"page": page is not None, "dicom_seg": dicom_seg or dicom_sr, "dicom_sr": dicom_sr}
    return [name for name, one in wanted.items() if one]


def _note(result: Segmentation) -> str:
    network, software = result.provenance["network"], result.provenance["software"]
    return (f"deeplung_nb {software['deeplung_nb']} net {network['sha256'][:12]}"
            f"{' SYNTHETIC TRAINING' if network['synthetic'] else ''}"
            f"{f' {len(result.warnings)} WARNINGS' if result.warnings else ''}")


def _preview(result: Segmentation) -> Image.Image:
    volumes = dict(zip(result.table["structure"], result.table["volume_ml"], strict=True))
    return draw_preview(result.case_id, result.scan, result.mask, result.lungs, volumes,
                        result.warnings,
                        f"deeplung_nb {__version__}, {result.provenance['network']['name']}")


def dicom_objects_of(result: Segmentation) -> dict[str, Any]:
    """A result as DICOM, `dicom_seg` and `dicom_sr`: as `imaging.dicom_objects`.

    Raises
    ------
    ScanError
        The scan was read from no DICOM series, or resampled.
    """
    slices = series_datasets(result.scan)
    by = Algorithm(result.provenance["network"]["name"],
                   f"{__version__} {result.provenance['network']['sha256'][:12]}")
    segmentation = make_segmentation(result.scan, result.mask, slices, by)
    measured = result.table.set_index("structure").to_dict("index")
    return {"dicom_seg": segmentation,
            "dicom_sr": make_report(segmentation, slices, measured, by)}


def segment_file(
    scan_path: Path, output: Path, *, checkpoints: Sequence[Path] | None = None,
    lung_mask: Path | None = None, lobe_mask: Path | None = None,
    lobe_codes: tuple[int, ...] = LOBE_CODES, case_id: str | None = None, series: str | None = None,
    geometry: str | None = None, overwrite: bool = False, force: bool = False,
    dicom_seg: bool = False, dicom_sr: bool = False,
    page: Callable[[Segmentation], str] | None = None, progress: bool = True,
) -> tuple[Segmentation, Outputs]:
    """Segment one CT and write its files, `<case>_lesions.nii.gz` and those of `ENDINGS`.

    Parameters
    ----------
    scan_path, series, geometry
        As `read_scan`.
    output
        Folder of the results; made when it is not there.
    checkpoints, force
        As `Segmenter`; with `force` a series with gaps, tilt or doubled slices is resampled too.
    lung_mask
        As `lungs` of `Segmenter`.
    lobe_mask, lobe_codes
        As `read_lobes`; default: no lobes.
    case_id
        Name of the outputs; default: that of an image file, of a folder a made one (`pseudonyms`).
    overwrite
        Whether results of an earlier call may be replaced. An input never is.
    dicom_seg, dicom_sr, page
        As `write_segmentation`.

    Raises
    ------
    ValueError, OSError
        Before any inference; the message names the file, what was expected and the remedy.
    """
    if not scan_path.exists():
        raise ScanError(f"case {case_id or case_name(scan_path)!r}: {scan_path} is missing, "
                        "expected a CT. Check the path")
    case = case_id if case_id is not None else default_case_id(scan_path)
    chosen = list(checkpoints or default_checkpoints())
    inputs = [scan_path, *chosen, *(path for path in (lung_mask, lobe_mask) if path is not None)]
    outputs = plan_outputs(output, case, inputs, overwrite, _asked_for(page, dicom_seg, dicom_sr))
    segmenter = Segmenter(chosen)
    scan = read_scan(scan_path, case_id=case, series=series, geometry=geometry, force=force)
    if outputs.dicom_seg is not None:
        series_datasets(scan)  # what DICOM can't be made for is said before the work
    # A mask of labels packs to a hundredth as a rule; a twentieth is room enough.
    check_writable(output, scan.hu.size // 20 + 1_000_000)
    lobes = None if lobe_mask is None else read_lobes(lobe_mask, scan, lobe_codes)
    result = segmenter(scan, lung_mask, lobes=lobes, case_id=case, force=force,
                       progress=progress)
    if output.is_dir():
        remove_leftovers(output)
    return result, write_segmentation(result, outputs, overwrite, page=page)


def follow_files(
    scans: Sequence[Path], output: Path, case_id: str, *, days: Sequence[float] | None = None,
    smallest_factor: float | None = None, page: Callable[[FollowUp, str], str] | None = None,
    checkpoints: Sequence[Path] | None = None, overwrite: bool = False, force: bool = False,
    progress: bool = True,
) -> tuple[FollowUp, list[Path]]:
    """Segment several scans of one patient; the changes and where they were written.

    Parameters
    ----------
    scans
        Two or more, as `scan_path` of `segment_file`; their results are `<case_id>-1` and so on.
    days, smallest_factor
        As `followup.follow`.
    page
        Makes a page of it, as `report.followup_page.make_followup_page`.

    Raises
    ------
    ValueError, OSError
        As `segment_file` and `followup.follow`: before any inference where it can be known.
    """
    check_name(case_id)
    if len(scans) < 2 or len({path.resolve() for path in scans}) < len(scans):
        raise ValueError(f"{len(scans)} scan(s), expected two or more different ones of a patient")
    if days is not None and len(set(days)) != len(scans):
        raise ValueError(f"{len(set(days))} different dates of {len(scans)} scans: expected one "
                         "for each")
    chosen = list(checkpoints or default_checkpoints())
    if smallest_factor is None:
        known, _ = detectable_factor(Segmenter(chosen).network.get("unseen") or ())
        if not math.isfinite(known):
            raise ValueError("how far this network errs is not known: give --smallest-factor "
                             "(smallest_factor), from readings of your own (notebook 11)")
    files = [output / f"{case_id}_followup.csv"]
    if page is not None:
        files.append(output / f"{case_id}_followup.html")
    there = [path.name for path in files if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{output}: {', '.join(there)} is there already. Choose another "
                              "--output or --case-id, or --overwrite it")
    results = [segment_file(path, output, checkpoints=chosen, case_id=f"{case_id}-{k}",
                            overwrite=overwrite, force=force, progress=progress)
               for k, path in enumerate(scans, 1)]
    found = follow([result for result, _ in results], days, smallest_factor)
    with atomic_paths(*files, replace=overwrite) as parts:
        write_text(parts[0], found.table.to_csv(index=False))
        if page is not None:
            write_text(parts[1], page(found, case_id))
    return found, [*(path for _, outputs in results for path in outputs), *files]
