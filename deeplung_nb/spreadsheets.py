"""Tables as people keep them: CSV of any separator, Excel."""

from __future__ import annotations

import csv
import os
import zipfile
from pathlib import Path

import pandas as pd


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab, UTF-8) or the first sheet of an Excel file.

    Raises
    ------
    ValueError
        There is no such file, or it holds no table; the message names it and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Give a CSV or Excel file, or a DataFrame")
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            return pd.read_excel(path)
        return pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")
    except (ValueError, KeyError, OSError, csv.Error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a table that can be read ({error}). Expected a CSV in UTF-8 "
                         "or an .xlsx file, first row the names") from error
