"""A statistic's docstring is its method card: what goes in, what comes out, and why to trust it."""

import importlib
import inspect
import re

import pytest

MODULES = ("agreement", "classes", "clusters", "comparison", "concordance", "correlation",
           "coverage", "description", "detection", "dice", "equivalence", "followup", "lesions",
           "mixed", "multiverse", "overlap", "paired", "planning", "readers", "regression",
           "reliability", "rivals", "robust", "surface", "tolerance", "trend")
SECTIONS = ("Parameters", "Returns", "Formula", "Source", "Checked against", "Examples")
ASSEMBLED = {
    "agreement_row", "agreement_table", "agreement_results", "compare", "dice_table", "groups_of",
    "rivals_table",
}
"""Tables put together from statistics, which have cards of their own."""


def statistics():
    for name in MODULES:
        module = importlib.import_module(f"deeplung_nb.stats.{name}")
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__ \
                    and not function.__name__.startswith("_") \
                    and function.__name__ not in ASSEMBLED:
                yield pytest.param(function, id=f"{name}.{function.__name__}")


def sections(docstring):
    """Heading -> text below it."""
    parts = re.split(r"^(\w[\w ]*)\n-+$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("function", list(statistics()))
def test_each_statistic_has_a_card_with_every_section(function):
    found = sections(function.__doc__)
    assert [name for name in SECTIONS if not found.get(name, "").strip()] == []
    assert ">>>" in found["Examples"]
    # A source can be looked up: it names a year, or the card that does.
    assert re.search(r"\b(1[89]|20)\d\d\b|As `\w+`", found["Source"])


@pytest.mark.parametrize("function", list(statistics()))
def test_each_parameter_is_described(function):
    described = re.findall(r"^(\w[\w, ]*)$", sections(function.__doc__)["Parameters"], re.MULTILINE)
    named = {name.strip() for line in described for name in line.split(",")}
    own = set(inspect.signature(function).parameters)
    # Every statistic takes these two, and means the same by them.
    assert own - named <= {"confidence", "missing"}
    assert named <= own


def test_the_cards_are_many():
    assert len(list(statistics())) >= 20
