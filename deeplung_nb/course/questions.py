"""The questions at the end of each notebook, and the check that answers them.

A question asks for a number or for a letter. What is right may depend on the run: then the cell
hands over the data that the notebook has. Usual mistakes are known by the answer that they lead
to, so that whoever made one is told which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from deeplung_nb.course.verdict import Verdict

Value = float | str | Callable[..., Any]
"""A number, a letter, or a function of what the cell hands over."""
LIKE_A_MISTAKE = 0.015
"""How far from a mistake's number is that mistake as well: rounded by hand."""
Mistake = tuple[Value, str, str]
"""What somebody who errs answers, what is wrong with it, and what to think of."""


@dataclass(frozen=True)
class Question:
    """One question; `given` names the notebook's variables that its cell hands to the check."""

    asks: str
    right: Value
    mistakes: tuple[Mistake, ...]
    solution: str
    given: tuple[str, ...] = ()
    tolerance: float = 0.01
    """How far from the right number is right as well, relative to it."""

    def cell(self, key: str) -> str:
        """The code cell below the question, still without an answer."""
        return f'course.check({", ".join((repr(key), "...", *self.given))})'.replace("'", '"')


class NothingToAsk(Exception):
    """The run has not what the question is about."""


def _value(value: Value, given: tuple[Any, ...]) -> float | str:
    return value(*given) if callable(value) else value


def _number(answer: Any) -> float | None:
    if isinstance(answer, bool):
        return None
    try:
        return float(Fraction(answer.strip().replace(",", ".").replace("−", "-"))
                     if isinstance(answer, str) else answer)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _is(answer: float, value: float, tolerance: float) -> bool:
    return math.isclose(answer, value, rel_tol=tolerance, abs_tol=1e-9)


def _of_any_kind(answer: float, right: float, tolerance: float) -> tuple[str, str]:
    """What can be said of a wrong number whatever was asked."""
    if right and _is(-answer, right, tolerance):
        return "The size is right, the sign is not.", "Above or below 0?"
    for factor in (10, 100, 1000, 1e6):
        if right and (_is(answer, right * factor, tolerance)
                      or _is(answer, right / factor, tolerance)):
            word = "large" if abs(answer) > abs(right) else "small"
            return (f"It is {factor:,.0f} times too {word}.",
                    "Which units go in, and which is asked for?")
    if right and _is(answer, right, max(0.05, 5 * tolerance)):
        return "It is near, but not it.", "Is one of the numbers off, or rounded on the way?"
    return f"{answer:g} is too {'large' if answer > right else 'small'}.", ""


def judge(question: Question, answer: Any, *given: Any) -> Verdict:
    """Whether an answer is right, else what kind of mistake it is."""
    if answer is ... or answer is None:
        return Verdict(False, "Put your answer in the place of the three dots, and run the cell.",
                       answered=False)
    try:
        right = _value(question.right, given)
    except NothingToAsk as nothing:
        return Verdict(False, f"{nothing}: no answer can be checked here.", answered=False)
    known = [(_value(value, given), words, hint) for value, words, hint in question.mistakes]
    solution = question.solution
    if callable(question.right):
        solution += f" Here: {right if isinstance(right, str) else format(right, '.4g')}."
    if isinstance(right, str):
        letter = answer.strip().rstrip(").").casefold() if isinstance(answer, str) else ""
        if letter == right.casefold():
            return Verdict(True, solution)
        for value, words, hint in known:
            if letter == str(value).casefold():
                return Verdict(False, words, hint, solution)
        letters = ", ".join(f'"{one}"' for one in sorted([right, *(str(v) for v, *_ in known)]))
        return Verdict(False, f"Expected one of {letters}, found {answer!r:.40}.", "",
                       solution)
    number = _number(answer)
    if number is None or not math.isfinite(number):
        return Verdict(False, f"Expected a number, found {answer!r:.40}.",
                       "Write the number alone, without its unit.", solution)
    if _is(number, float(right), question.tolerance):
        return Verdict(True, solution)
    for tolerance in (question.tolerance, LIKE_A_MISTAKE):
        for value, words, hint in known:
            if _is(number, float(value), tolerance):
                return Verdict(False, words, hint, solution)
    words, hint = _of_any_kind(number, float(right), question.tolerance)
    return Verdict(False, words, hint, solution)
