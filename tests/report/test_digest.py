"""A run's numbers as Markdown."""

from __future__ import annotations

from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    numbers,
)
from deeplung_nb.stats import agreement


def test_digest_holds_each_case_and_the_agreement(measured, tmp_path, capsys):
    from deeplung_nb.__main__ import main

    measured.to_csv(tmp_path / "measurements.csv", index=False)
    assert main(["digest", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    table = pair(measured, "expert", "model", "ggo", role="external")
    bias = agreement.bland_altman(table.reference, table.test).bias
    assert f"| Ground-glass opacity (external) | {len(table)} |" in text
    assert numbers.number(bias) in text
    for case in table.itertuples():
        if len(table) <= 20:
            assert f"| {case.case_id} | {numbers.number(case.reference)}, " in text
    assert main(["digest", str(tmp_path / "absent.csv")]) == 1
    assert "absent.csv: no such file, expected a measurements.csv" in capsys.readouterr().err
