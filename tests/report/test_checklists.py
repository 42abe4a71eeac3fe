"""Checklists refuse to lie: what a run does not hold and nobody says is not covered."""

from __future__ import annotations

import re

import docx
import pandas as pd
import pytest

from deeplung_nb.files import sha256_of
from deeplung_nb.report import checklists, html
from deeplung_nb.report.checklist_items import Item, Need
from deeplung_nb.report.checklists import AUTHORS, COVERED, MISSING, PARTLY
from deeplung_nb.runs.study_record import SCHEMA, StudyRecord
from tests.report.fakes import HOSTILE, Page

TABLE = Need("table", "flow", "the flow")


def write(run, name="flow"):
    path = run.path("tables", f"{name}.csv")
    path.write_text("a,b\n1,2\n")
    return path


@pytest.mark.parametrize(("needs", "keys", "there", "said", "status"), [
    ((TABLE,), (), True, {}, COVERED),
    ((TABLE,), (), False, {}, MISSING),
    ((TABLE, Need("table", "other", "")), (), True, {}, PARTLY),
    ((TABLE,), ("study.title",), True, {}, PARTLY),
    ((TABLE,), ("study.title",), False, {"study.title": "T"}, PARTLY),
    ((TABLE,), ("study.title",), True, {"study.title": "T"}, COVERED),
    ((TABLE,), ("study.title",), False, {}, MISSING),
    ((), ("study.title",), True, {}, AUTHORS),
    ((), ("study.title",), True, {"study.title": "T"}, COVERED),
    ((), ("study.title", "study.goal"), True, {"study.title": "T"}, PARTLY),
    ((), (), True, {}, AUTHORS),
])
def test_an_item_is_covered_only_where_all_of_it_is(run, needs, keys, there, said, status):
    if there:
        write(run)
    evidence = checklists.Evidence.of(run, None, StudyRecord())
    answered, = checklists.answer_items(
        [Item(1, "", "", needs, keys)], evidence, StudyRecord(said))
    assert answered.status == status
    assert (status == COVERED) == (not answered.lacks)


def test_what_is_asked_of_readers_is_asked_of_each(run):
    evidence = checklists.Evidence.of(run, None, StudyRecord())
    item = [Item(16, "", "", author=("readers.role", "readers.years"))]
    for readers, status in ((({"name": "AB", "role": "r", "years": 3},), COVERED),
                            (({"name": "AB", "role": "r"}, {"name": "CD", "years": 3}), PARTLY),
                            (({"name": "AB", "role": "r", "years": 3}, {"name": "EF"}), PARTLY),
                            ((), AUTHORS)):
        answered, = checklists.answer_items(item, evidence, StudyRecord(readers=readers))
        assert answered.status == status


def test_no_run_covers_how_far_annotators_are_from_themselves(run):
    write(run, "panel")
    table = pd.DataFrame({"role": ["cv"], "reader": ["reader-ann"], "status": ["ok"]})
    run.path("measurements.csv").write_text("x")
    evidence = checklists.Evidence(run, (), (), frozenset({"cv"}), frozenset(table.reader))
    item = next(one for one in checklists.CLAIM if one.number == 18)
    answered, = checklists.answer_items([item], evidence, StudyRecord())
    assert answered.status == PARTLY
    assert "from themself" in answered.lacks[0]
    assert "reference.discrepancies" in answered.lacks[1]
    record = StudyRecord({"reference.discrepancies": "a third radiologist decided"})
    said, = checklists.answer_items([item], evidence, record)
    assert said.status == PARTLY  # how far annotators are from themselves nobody can say later
    assert said.quoted == (("reference.discrepancies", "a third radiologist decided"),)
    assert len(said.lacks) == 1


def test_a_piece_is_linked_and_bears_its_hash(run):
    path = write(run)
    evidence = checklists.Evidence.of(run, None, StudyRecord())
    piece, = evidence.find(TABLE)
    assert piece == ("table flow", "report.html#table-flow", sha256_of(path))
    path.write_text("a,b\n1,3\n")
    assert evidence.find(TABLE)[0].sha256 != piece.sha256


def test_an_empty_run_covers_only_what_its_methods_say(run):
    """No table, no figure, no external case, no author: nothing is made up."""
    lists = checklists.answer_checklists(run, None, StudyRecord())
    assert [len(lists[name]) for name in ("claim", "grras", "metrics")] == [44, 15, 13]
    claim = {one.item.number: one for one in lists["claim"]}
    for number in (18, 30, 32, 33, 35, 36, 37, 38, 39):
        assert claim[number].status == MISSING, number
    for number in (1, 2, 3, 4, 5, 6, 11, 15, 16, 17, 21, 31, 34, 41, 43, 44):
        assert claim[number].status == AUTHORS, number
    for one in lists["claim"]:
        if one.status == COVERED:
            assert all(piece.words.startswith("Methods") or piece.words == "run.json"
                       for piece in one.pieces), one.item
    numbers = [one.item.number for one in lists["claim"]]
    assert numbers == list(range(1, 45))


def test_each_key_that_an_item_asks_of_its_authors_is_known():
    for items in checklists.ITEMS.values():
        for item in items:
            for key in item.author:
                table, name = key.split(".")
                assert table == "readers" or name in SCHEMA[table], key
            assert item.run or item.author, item


def test_each_sentence_that_covers_an_item_stands_in_the_methods(run):
    evidence = checklists.Evidence.of(run, None, StudyRecord())
    for items in checklists.ITEMS.values():
        for item in items:
            for need in item.run:
                if need.kind == "sentence":
                    found = evidence.find(need)
                    assert found, need
                    assert need.what.lower() in found[0].words.lower()


def test_margin_and_sample_size_that_were_declared_stand_in_the_methods(run):
    record = StudyRecord({"margin.ml": 12.5, "margin.declared": "2020-05-01",
                          "sampling.size_rationale": "eighty cases give ±5 mL."})
    said = " ".join(checklists.describe_methods(run.config, record))
    assert "A margin of 12.5 mL was declared on 2020-05-01." in said
    assert "eighty cases give ±5 mL." in said
    assert "No margin" not in said
    assert "no sample size was planned" not in said


def test_a_report_shows_its_checklists_and_leaves_them_as_word(run, measured, monkeypatch,
                                                               tmp_path):
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path))
    (tmp_path / "cohorts.toml").write_text("")
    (tmp_path / "study.toml").write_text(
        f"[study]\ntitle = '{HOSTILE}'\nfunding = 'none'\n[margin]\nml = 20\n")
    measured.to_csv(run.path("measurements.csv"), index=False)
    text = html.write_report(run).read_text(encoding="utf-8")
    assert HOSTILE not in text
    page = Page(text)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.tags
             if tag == "a" and "href" in attributes]
    inside = [link[1:] for link in links if link.startswith("#")]
    assert set(inside) <= anchors
    for link in set(links) - {f"#{name}" for name in inside}:
        assert (run.folder / link).is_file(), link
    said = re.search(r"CLAIM 2024: (\d+) covered, (\d+) partly, (\d+) missing, (\d+) only",
                     page.words)
    assert sum(map(int, said.groups())) == 44
    # The margin that was declared is the one that every choice is held against.
    choices = pd.read_csv(run.path("tables", "every_choice.csv"))
    assert choices[choices.question == "bias"].sentence.str.contains("margin|open").all()
    assert "A margin of 20 mL was declared." in page.words
    for name, n in (("claim", 44), ("grras", 15), ("metrics", 13)):
        document = docx.Document(run.path("checklists", f"{name}.docx"))
        assert len(document.tables[0].rows) == n + 1
        frame = pd.read_csv(run.path("checklists", f"{name}.csv"))
        assert len(frame) == n
        for row, cells in zip(frame.itertuples(), document.tables[0].rows[1:], strict=True):
            assert cells.cells[2].text == row.status
    funding = pd.read_csv(run.path("checklists", "claim.csv")).set_index("item").loc[44]
    assert funding.status == PARTLY
    assert "“none” (study.funding)" in funding.authors
    assert "study.role_of_funders" in funding.lacks
