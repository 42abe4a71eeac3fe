"""What the notebooks' exercises ask for, and checks that answer: right, or what went wrong."""

from typing import Any

from deeplung_nb.course import before_the_statistics, on_the_statistics
from deeplung_nb.course.checks import (
    check_dice,
    check_limits,
    check_p_of_pairs,
    check_three_cases,
    check_useless_machine,
    check_volume,
)
from deeplung_nb.course.questions import judge
from deeplung_nb.course.verdict import Verdict

__all__ = ["Verdict", "check", "check_dice", "check_limits", "check_p_of_pairs",
           "check_three_cases", "check_useless_machine", "check_volume"]

QUESTIONS = {**before_the_statistics.QUESTIONS, **on_the_statistics.QUESTIONS}
"""By notebook and number, as 05.2."""


def check(number: str, answer: Any, *given: Any) -> Verdict:
    """Whether an answer to a notebook's question is right, else what kind of mistake it is.

    `number` names the question, as 05.2; `answer` is a number, or a letter in quotes; what follows
    is what the question is about, as it stands in its cell.

    Raises:
        KeyError: there is no such question.
    """
    if number not in QUESTIONS:
        raise KeyError(f"no question {number!r}; there are {', '.join(QUESTIONS)}")
    return judge(QUESTIONS[number], answer, *given)
