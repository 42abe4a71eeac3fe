"""What comes with the package, laid out in a folder of one's own."""

import re

from deeplung_nb.runs.resources import lay_out, shipped


def test_every_link_of_what_is_laid_out_leads_to_what_is_there(tmp_path):
    before = {path: path.read_bytes() for path in shipped("docs").glob("*.md")}
    laid = lay_out(tmp_path / "course")
    texts = [path for path in laid if path.suffix == ".ipynb"]
    texts += list((tmp_path / "course" / "docs").rglob("*.md"))
    dead = [(path.name, link) for path in texts
            for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
            if not link.startswith("http") and not (path.parent / link).exists()]
    assert len(texts) > 30
    assert not dead
    assert before == {path: path.read_bytes() for path in shipped("docs").glob("*.md")}


def test_pages_of_ones_own_stay_as_they_are(tmp_path):
    own = tmp_path / "docs" / "own" / "notes.md"
    own.parent.mkdir(parents=True)
    for path in (own, tmp_path / "docs" / "mine.md"):
        path.write_bytes(b"[x](../notebooks/mine.ipynb) \xe4")
    lay_out(tmp_path)
    assert own.read_bytes() == (tmp_path / "docs" / "mine.md").read_bytes() == \
        b"[x](../notebooks/mine.ipynb) \xe4"
