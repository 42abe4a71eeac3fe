"""What the notebooks' exercises ask for, and checks that answer: right, or what went wrong."""

from deeplung_nb.course.checks import (
    Verdict,
    check_dice,
    check_limits,
    check_p_of_pairs,
    check_three_cases,
    check_useless_machine,
    check_volume,
)

__all__ = ["Verdict", "check_dice", "check_limits", "check_p_of_pairs", "check_three_cases",
           "check_useless_machine", "check_volume"]
