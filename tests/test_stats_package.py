"""`deeplung_nb.stats` itself: names when asked for, quick to import."""

import subprocess
import sys

import pytest

from deeplung_nb import stats


def test_submodules_are_there_when_asked_for_and_quick_to_import():
    code = ("import sys, deeplung_nb.stats as s; assert 'scipy' not in sys.modules; "
            "print(s.agreement.bland_altman.__name__, 'paired' in dir(s))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bland_altman", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stats.nothing
