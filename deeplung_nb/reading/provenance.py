"""Where a result comes from: the networks and the files of the scan, with their hashes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplung_nb.files import sha256_of
from deeplung_nb.imaging.io import IMAGE_SUFFIXES, scan_files
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.network.checkpoint import read_checkpoint
from deeplung_nb.network.packaged import read_card
from deeplung_nb.pseudonyms import pseudonym
from deeplung_nb.runs.registry import read_registry


def _tested_only() -> set[str]:
    """Cohorts that no training may see: a run names them beside those that it trains on."""
    try:
        registry = read_registry()
    except ValueError:  # own manifests without a list of cohorts
        return set()
    return {name for name, entry in registry.items() if entry.get("role") == "external"}


def describe_network(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Name, files with hashes, and what these networks were trained on.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or no checkpoint of this package.
    """
    saved = [read_checkpoint(path) for path in checkpoints]
    trained = [one.get("trained_on") for one in saved]
    known = all(trained)
    tested_only = _tested_only()
    cohorts = sorted({name for one in trained if one for name in one["cohorts"]} - tested_only)
    if not known:
        shown = "unknown: the checkpoint does not say"
    elif all(one["synthetic"] for one in trained):
        shown = f"synthetic chests only ({', '.join(cohorts)}): a demonstration, no measurement"
    else:
        shown = f"cohorts {', '.join(cohorts)}"
    # results/<run>/fold-0/checkpoint.pt: what tells networks apart is in the last three names.
    files = [{"file": "/".join(path.resolve().parts[-3:]), "sha256": sha256_of(path)}
             for path in checkpoints]
    card = read_card()
    if card and [file["sha256"] for file in files] == [file["sha256"] for file in card["files"]]:
        kinds = str(card["name"])
    else:
        kinds, card = " + ".join(dict.fromkeys(str(one["name"]) for one in saved)), {}
    lines = "".join(f"{file['sha256']}\n" for file in files)
    return {
        "name": kinds if len(saved) == 1 else f"mean of {len(saved)} {kinds}",
        "sha256": files[0]["sha256"] if len(files) == 1
        else hashlib.sha256(lines.encode()).hexdigest(),
        "files": files, "trained_on": shown,
        "synthetic": known and all(one["synthetic"] for one in trained),
        "trained_with": sorted({str(one.get("software", "unknown")) for one in saved}),
        "training_ranges": card.get("training_ranges"), "unseen": card.get("unseen"),
    }


def describe_source(scan: Scan) -> dict[str, Any]:
    """What a scan was read from, by its hash and kind, and how many files lay beside it, and why.

    No name of a file or folder, no UID and no free text: these name patients. A series stands under
    a made name, so that two results of one series are known as such by who has the key.
    """
    source = Path(scan.source)
    # A scan that was made in memory has no file; no path would be the current folder.
    files = scan_files(source, scan.case_id) if scan.source and source.exists() else []
    if len(files) == 2:
        lines = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
        digest, of = hashlib.sha256(lines.encode()).hexdigest(), \
            "the lines of sha256sum for the header and the file of its voxels"
    else:
        digest = sha256_of(source) if files else None
        of = "the lines of sha256sum for all files of the folder" \
            if scan.source and source.is_dir() else "the file"
    reasons = Counter(re.sub(r"\s*\(.*\)", "", why) for _, why in scan.left_out)
    return {"kind": _kind(scan, source),
            "series": pseudonym(scan.series.split(" ")[0], "series") if scan.series else None,
            "sha256": digest,
            "sha256_is_of": of, "geometry": scan.geometry, "read_with": list(scan.notes),
            "left_out": {"files": len(scan.left_out), "reasons": dict(reasons)}}


def _kind(scan: Scan, source: Path) -> str:
    if scan.series:
        return "DICOM series"
    ending = next((one for one in sorted(IMAGE_SUFFIXES, key=len, reverse=True)
                   if source.name.lower().endswith(one)), None)
    return f"a file {ending}" if ending else "made in memory"
