"""Each check of the exercises is tried with right answers, and with wrong ones people give."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb import course, measurements
from deeplung_nb.cohorts.cases import list_cohorts
from deeplung_nb.report.explore import Question, answer
from deeplung_nb.runs import read_run
from deeplung_nb.stats import correlation, paired
from deeplung_nb.stats.overlap import Confusion

ROOT = Path(__file__).resolve().parent.parent
NAN = float("nan")


def safe(numerator, denominator):
    return numerator / denominator if denominator else NAN


RIGHT = [
    (course.check_volume, lambda n, mm: n * np.prod(mm) / 1000),
    (course.check_volume, lambda n, mm: n * mm[2] / 10 * mm[1] / 10 * mm[0] / 10),
    (course.check_dice, lambda tp, fp, fn: safe(2 * tp, 2 * tp + fp + fn)),
    (course.check_dice, lambda tp, fp, fn: np.nan if tp + fp + fn == 0 else np.float64(
        tp / (tp + (fp + fn) / 2))),
    (course.check_limits, lambda a, b: ((b - a).mean(), (b - a).mean() - 1.96 * (b - a).std(ddof=1),
                                        (b - a).mean() + 1.96 * (b - a).std(ddof=1))),
    (course.check_limits, lambda a, b: np.mean(b - a) + np.array([0, -1, 1]) * 1.959964
     * np.std(b - a, ddof=1)),
    (course.check_useless_machine, lambda expert: 4 * expert),
    (course.check_useless_machine, lambda expert: expert ** 2),
    (course.check_useless_machine, lambda expert: list(expert + 1000)),
    (course.check_three_cases, lambda: (Confusion(9500, 300, 300), Confusion(0, 0, 40),
                                        Confusion(0, 0, 0))),
    (course.check_three_cases, lambda: [Confusion(0, 0, 0), Confusion(0, 5, 9),
                                        Confusion(9900, 0, 400)]),
    (course.check_p_of_pairs, lambda a, b: paired.wilcoxon_signed_rank(a, b).p_value),
    (course.check_p_of_pairs, lambda a, b: stats.wilcoxon(b - a).pvalue),
]
WRONG = [
    (course.check_volume, lambda n, mm: n * np.prod(mm), "cubic millimetres"),
    (course.check_volume, lambda n, mm: n * mm[0] * mm[1] * mm[1] / 1000, "square"),
    (course.check_volume, lambda n, mm: n * mm[0] * mm[2] * mm[2] / 1000, "square"),
    (course.check_volume, lambda n, mm: n * mm[1] * mm[2] / 1000, "an area"),
    (course.check_volume, lambda n, mm: 166.4, "whatever it is asked"),
    (course.check_volume, lambda n, mm: n * sum(mm) / 1000, "added"),
    (course.check_volume, lambda n, mm: n * mm / 1000, "TypeError"),
    (course.check_volume, lambda n, mm: None, "whatever it is asked"),
    (course.check_dice, lambda tp, fp, fn: safe(tp, tp + fp + fn), "Jaccard"),
    (course.check_dice, lambda tp, fp, fn: safe(tp, tp + fn), "sensitivity"),
    (course.check_dice, lambda tp, fp, fn: safe(tp, tp + fp), "precision"),
    (course.check_dice, lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn), "divide 0 by 0"),
    (course.check_dice, lambda tp, fp, fn: tp / (tp + fp + fn), "Jaccard"),
    (course.check_dice, lambda tp, fp, fn: 2 * tp / max(2 * tp + fp + fn, 1), "gives 0.0"),
    (course.check_dice, lambda tp, fp, fn: (2 * tp + 1e-9) / (2 * tp + fp + fn + 1e-9), "1.0"),
    (course.check_dice, lambda tp, fp, fn: 1, "whatever it is asked"),
    (course.check_limits, lambda a, b: ((a - b).mean(), (a - b).mean() - 1.96 * (b - a).std(ddof=1),
                                        (a - b).mean() + 1.96 * (b - a).std(ddof=1)),
     "other way round"),
    (course.check_limits, lambda a, b: ((b - a).mean(), (b - a).mean() - 1.96 * (b - a).std(),
                                        (b - a).mean() + 1.96 * (b - a).std()), "not n − 1"),
    (course.check_limits, lambda a, b: ((b - a).mean(), *stats.norm.interval(
        0.95, (b - a).mean(), stats.sem(b - a))), "interval of the bias"),
    (course.check_limits, lambda a, b: np.mean(b - a) + np.array([0, -1, 1]) * np.std(
        b - a, ddof=1), "taken once"),
    (course.check_limits, lambda a, b: np.median(b - a) + np.array([0, -1, 1]) * 1.96 * np.std(
        b - a, ddof=1), "median"),
    (course.check_limits, lambda a, b: np.mean(b - a) + np.array([-1, 1, 0]) * 1.96 * np.std(
        b - a, ddof=1), "another order"),
    (course.check_limits, lambda a, b: (0, 0, 0), "whatever it is asked"),
    (course.check_limits, lambda a, b: f"wide {a[0]}", "a str, expected numbers"),
    (course.check_useless_machine, lambda expert: expert, "expert himself"),
    (course.check_useless_machine, lambda expert: 1.2 * expert, "agrees too well"),
    (course.check_useless_machine, lambda expert: -expert, "turned round"),
    (course.check_useless_machine, lambda expert: 0 * expert, "same reading for everybody"),
    (course.check_useless_machine, lambda expert: np.random.default_rng().random(len(expert)),
     "chance"),
    (course.check_useless_machine, lambda expert: 300 * np.sin(expert), "rank correlation"),
    (course.check_useless_machine, lambda expert: expert[:5], "each of the 40 patients"),
    (course.check_three_cases, lambda: (Confusion(9500, 300, 300), Confusion(0, 0, 40)), "2 cases"),
    (course.check_three_cases, lambda: (Confusion(9500, 300, 300), Confusion(0, 0, 40),
                                        Confusion(10, 1, 1)), "two empty masks"),
    (course.check_three_cases, lambda: (Confusion(9500, 300, 300), Confusion(5, 20, 20),
                                        Confusion(0, 0, 0)), "were missed"),
    (course.check_three_cases, lambda: (Confusion(95, 3, 3), Confusion(0, 0, 40),
                                        Confusion(0, 0, 0)), "pooled Dice is"),
    (course.check_three_cases, lambda: (Confusion(9900, 0, 0), Confusion(0, 0, 40),
                                        Confusion(0, 0, 0)), "mean of the cases is 0.50"),
    (course.check_three_cases, lambda: (0.95, 0.0, NAN), "overlap.Confusion"),
    (course.check_p_of_pairs, lambda a, b: paired.mann_whitney(a, b).p_value, "independent groups"),
    (course.check_p_of_pairs, lambda a, b: stats.ranksums(a, b).pvalue, "independent groups"),
    (course.check_p_of_pairs, lambda a, b: stats.ttest_rel(a, b).pvalue, "paired t test"),
    (course.check_p_of_pairs, lambda a, b: paired.sign_test(a, b).p_value, "sign test"),
    (course.check_p_of_pairs, lambda a, b: correlation.spearman(a, b).p_value, "correlation"),
    (course.check_p_of_pairs, lambda a, b: 0, "whatever it is asked"),
    (course.check_p_of_pairs, lambda a, b: paired.wilcoxon_signed_rank(a, b),
     "a SignedRank, expected a number"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_are_right_however_they_are_written(check, answer):
    verdict = check(answer)
    assert verdict, verdict
    assert str(verdict).startswith("Right.")


@pytest.mark.parametrize(("check", "answer", "said"), WRONG)
def test_wrong_answers_are_told_what_kind_of_mistake_they_are(check, answer, said):
    verdict = check(answer)
    assert not verdict
    assert said in verdict.words, verdict
    assert "Not yet." in repr(verdict)


def test_each_check_was_tried_with_five_wrong_answers():
    for name in course.__all__:
        if name.startswith("check_"):  # the others: below
            tried = [check for check, *_ in WRONG if check is getattr(course, name)]
            assert len(tried) >= 5, name


@pytest.fixture(scope="module")
def given():
    """What the notebooks hand to the checks: by the names that the questions give."""
    run = read_run(ROOT / "results" / "example")
    measured = measurements.read(run.measurements_csv)
    scan = SimpleNamespace(spacing_mm=(5.0, 0.8, 0.7), hu=np.zeros((3, 300, 320)))
    return {
        "people": pd.concat([c.included for c in list_cohorts(run)], ignore_index=True),
        "measured": measured, "external": measured.query("role == 'external'"),
        "pairs": measurements.pair(measured, "expert", "model", "ggo", role="cv"),
        "history": pd.DataFrame({"epoch": [1, 2, 3, 4, 5, 6],
                                 "train_loss": [1.0, 0.8, 0.7, 0.5, 0.4, 0.6],
                                 "validation_loss": [1.1, 0.9, 0.75, 0.8, 1.3, 1.2]}),
        "box": SimpleNamespace(side=280), "case.scan": scan,
        "run.config.network.image_size": 96,
    }


def asked_of(number, given):
    question = course.QUESTIONS[number]
    return question, [given[name] for name in question.given]


def value_of(value, data):
    return value(*data) if callable(value) else value


def differs(one, right, tolerance):
    return isinstance(right, str) or not np.isclose(one, right, rtol=tolerance)


@pytest.mark.parametrize("number", course.QUESTIONS)
def test_a_question_knows_its_answer_and_names_every_usual_mistake(number, given):
    question, data = asked_of(number, given)
    right = value_of(question.right, data)
    assert course.check(number, right, *data), number
    values = [value_of(value, data) for value, *_ in question.mistakes]
    for wrong, (_, words, hint) in zip(values, question.mistakes, strict=True):
        if differs(wrong, right, question.tolerance):
            verdict = course.check(number, wrong, *data)
            assert not verdict
            assert question.solution in verdict.solution
            if values.count(wrong) == 1:
                assert (verdict.words, verdict.hint) == (words, hint)


@pytest.mark.parametrize("number", course.QUESTIONS)
def test_each_question_was_tried_with_five_wrong_answers(number, given):
    question, data = asked_of(number, given)
    right = value_of(question.right, data)
    wrong = [value_of(value, data) for value, *_ in question.mistakes]
    wrong = [one for one in wrong if differs(one, right, question.tolerance)]
    wrong += ["all of them", 3, True, [1, 2]] if isinstance(right, str) else [
        "many", float("nan"), True, 1000 * right + 1e6, -right - 1]
    assert len({repr(one) for one in wrong}) >= 5
    for one in wrong:
        verdict = course.check(number, one, *data)
        assert not verdict
        assert verdict.answered
        assert verdict.words


def test_a_number_is_right_however_it_is_written():
    for given_as in (6.67, "6.67", "6,67", "20/3",  np.float32(6.6667), np.array(6.6667)):
        assert course.check("00.1", given_as)
    for given_as in ("b", "B", "b)", " b "):
        assert course.check("07.3", given_as)


def test_what_was_not_answered_is_neither_right_nor_wrong(given):
    for number in course.QUESTIONS:
        _, data = asked_of(number, given)
        verdict = course.check(number, ..., *data)
        assert not verdict
        assert not verdict.answered
        assert "Your turn." in verdict._repr_html_()
        assert "Solution" not in verdict._repr_html_()


def test_usual_slips_are_named_whatever_is_asked():
    assert "sign" in course.check("11.1", -33.26).words
    assert "1,000 times too large" in course.check("11.1", 33_262).words
    assert "10 times too small" in course.check("11.1", 3.3262).words
    assert "near" in course.check("11.1", 34).words
    assert "too large" in course.check("11.1", 40).words
    assert "lower end became 0" in course.check("02.1", 0.083).words  # 50 / 600, rounded by hand


def test_a_run_without_what_is_asked_says_so_instead_of_failing(given):
    empty = given["measured"].iloc[:0]
    nobody = given["people"].assign(protocol="")
    blind = given["history"].assign(validation_loss=np.nan)
    for number, data in (("06.2", empty), ("08.2", empty), ("10.2", empty), ("01.1", nobody),
                         ("01.1", nobody.iloc[:0]), ("04.1", blind),
                         ("04.1", blind.drop(columns="validation_loss"))):
        verdict = course.check(number, 1, data)
        assert not verdict.answered, number
        assert "no answer can be checked" in verdict.words


def test_an_unknown_question_is_named():
    with pytest.raises(KeyError, match=r"no question '99\.1'"):
        course.check("99.1", 1)


def test_what_a_learner_writes_is_text_not_markup_and_no_input_is_changed():
    def nasty(expert):
        raise ValueError("<img src=x>")

    page = course.check_useless_machine(nasty)._repr_html_()
    assert "&lt;img" in page
    assert "<img" not in page

    def changes(expert, automatic):
        expert *= 0
        return 0, 0, 0

    assert not course.check_limits(changes)
    assert course.check_limits(RIGHT[4][1])


def test_every_statistic_that_is_shown_stands_in_the_glossary():
    words = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    table = measurements.read(ROOT / "results" / "example" / "measurements.csv")
    shown = answer(table, Question(where=(("role", "cv"),))).statistics["statistic"]
    for name in shown:
        plain = re.sub(r",.*| by .*| at the mean.*|of the unlike|of all|lower |upper |[(].*[)]|"
                       r" of (unlike|all).*", "", name.lower()).strip()
        assert plain.removesuffix("s") in words, name
    for name in ("GGO", "HU", "CT", "LoA", "CCC", "ICC", "TOST", "SDC", "NSD", "HD95", "Dice",
                 "RMI", "MOVER", "DICOM", "burden"):
        assert name.lower() in words, name


def test_the_modules_that_the_glossary_names_are_there():
    words = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(stats\.[a-z]+)`", words)):
        importlib.import_module(f"deeplung_nb.{name}")


def test_a_hint_is_folded_away():
    page = course.check_volume(lambda n, mm: n * np.prod(mm))._repr_html_()
    assert page.index("<details>") < page.index("How many cubic millimetres")
    assert "✗" in page
    assert "✓" in course.check_volume(RIGHT[0][1])._repr_html_()
