"""A text's sources: those of what it names, each once, and no other."""

import pytest

from deeplung_nb.measurements import pair as pair_readings
from deeplung_nb.report.methods import describe_methods
from deeplung_nb.report.prose import report_text
from deeplung_nb.report.sources import SOURCES, cite
from deeplung_nb.runs.config import PROFILES


def test_what_a_paragraph_names_is_cited_and_nothing_else(measured):
    pair = pair_readings(measured, "expert", "model", "ggo")
    text = report_text(pair)
    found = " ".join(cite(text))
    for author in ("Bland & Altman 1986", "Wilcoxon 1945", "Hodges & Lehmann", "Spearman 1904",
                   "Lin 1989", "Shapiro & Wilk"):
        assert author in found
    assert "Schuirmann" not in found
    assert "Schuirmann" in " ".join(cite(report_text(pair, margin=50.0)))
    assert "Ronneberger" not in found
    assert cite("nothing of this kind") == []
    assert cite("Lin’s concordance correlation").count(dict(SOURCES)["Lin’s"]) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_cites_its_own_network(profile):
    text = " ".join(describe_methods(PROFILES[profile]))
    found = " ".join(cite(text))
    assert ("Shi et al. 2015" in found) == ("convolutional LSTM" in text)
    assert ("Sandler" in found) == ("MobileNet" in text)
    assert ("Ronneberger" in found) == ("U-Net" in text)
