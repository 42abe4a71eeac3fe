"""What outputs call a scan: never by the name of a folder, which may be a patient's."""

from __future__ import annotations

from pathlib import Path

from deeplung_nb.files import safe_name
from deeplung_nb.imaging.io import IMAGE_SUFFIXES, case_name
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.pseudonyms import pseudonym


def default_case_id(path: Path) -> str:
    """What a scan is called where nobody named it: an image file by its name, a folder by none.

    Hospitals call folders after patients, so a folder, a zip or a DICOM file gets a made name
    (`pseudonyms`).
    """
    if not path.is_dir() and path.name.lower().endswith(IMAGE_SUFFIXES):
        return safe_name(case_name(path))
    return pseudonym(str(path.resolve()))


def public_case_id(scan: Scan) -> str:
    """What the outputs call a scan: its own name, but never that of the folder it lay in."""
    source = Path(scan.source)
    if not scan.source or not source.exists():
        return scan.case_id
    is_image = source.is_file() and source.name.lower().endswith(IMAGE_SUFFIXES)
    if is_image and scan.case_id == source.parent.name != case_name(source):
        return default_case_id(source.parent)  # a folder with one image was given
    if not is_image and scan.case_id in (source.name, source.stem):
        return default_case_id(source)
    return scan.case_id
