"""The weights that come with the package, and their card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deeplung_nb.files import recover, sha256_of

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
CARD = "card.json"


def read_card(folder: Path = WEIGHTS_FOLDER) -> dict[str, Any] | None:
    """What is known of the packaged network: `name, files, cohorts, licence, settings, ...`.

    None where the package holds none.
    """
    path = folder / CARD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def packaged_checkpoints(folder: Path = WEIGHTS_FOLDER) -> list[Path]:
    """The packaged networks' files, their hashes compared; empty where there are none.

    Raises
    ------
    ValueError
        A file is missing or another one than the card says.
    """
    recover(folder)  # a training killed while it placed them
    card = read_card(folder)
    if card is None:
        return []
    for entry in card["files"]:
        path = folder / entry["file"]
        found = sha256_of(path) if path.is_file() else "no such file"
        if found != entry["sha256"]:
            raise ValueError(f"packaged weights {path}: SHA-256 {found}, expected "
                             f"{entry['sha256']}. Install the package again, or give --checkpoint")
    return [folder / entry["file"] for entry in card["files"]]
