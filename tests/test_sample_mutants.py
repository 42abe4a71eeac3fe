"""Which mutants `make mutmut` draws."""

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "sample_mutants", ROOT / "tools" / "sample_mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("old", "new", "words"), [
    ('raise ValueError("no pair")', 'raise ValueError("XXno pairXX")', True),
    ('why = "a reader is constant"', 'why = "A READER IS CONSTANT"', True),
    ("if m < 3:", "if m <= 3:", False),
    ("half = t * error", "half = t / error", False),
    ("return describe(a, b)", "return describe(a, None)", False),
])
def test_only_the_letters_of_a_message_are_passed_over(tool, old, new, words):
    diff = f"# name: survived\n--- a.py\n+++ a.py\n@@ -1 +1 @@\n-    {old}\n+    {new}\n     done\n"
    assert tool.of_words(diff) is words


def test_every_package_has_its_tests(tool):
    for package, names in tool.TESTS.items():
        assert (ROOT / "deeplung_nb" / package).is_dir()
        for name in names.split():
            assert list((ROOT / "tests").glob(f"test_{name}.py")), name
