"""The rooms of the library: who may import whom, and what must load without torch."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "deeplung_nb"
LEVELS = {"imaging": 1, "workers": 1, "corrections": 2, "cohorts": 2, "stats": 2,
          "course": 3, "network": 3, "reading": 4, "learning": 5, "report": 6, "scaling": 7,
          "widgets": 8, "reproduce": 9, "__main__": 10}
HEAVY = {  # third-party packages that only these rooms may import
    "torch": {"network", "reading", "learning"}, "monai": {"network"},
    "SimpleITK": {"imaging", "cohorts"}, "pydicom": {"imaging"}, "highdicom": {"imaging"},
    "statsmodels": {"stats"}, "distributed": {"scaling", "workers"},
    "dask": {"scaling", "workers"},
    "pyarrow": {"scaling"},
    "pandera": {"cohorts"}, "pooch": {"cohorts"}, "matplotlib": {"report"}, "seaborn": {"report"},
    "great_tables": {"report"}, "docx": {"report"}, "nbclient": {"reproduce"},
    "anywidget": {"widgets"}, "ipywidgets": {"widgets"}, "traitlets": {"widgets"},
    "k3d": {"widgets"}, "itkwidgets": {"widgets"}, "ipyniivue": {"widgets"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(parts):
    """The room of a module given by its path parts below the package; level 0 has none."""
    return parts[0] if parts and parts[0] in LEVELS else ""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".") for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = node.module.split(".")
            yield from ([*base, name.name] for name in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_upwards_only(path):
    here = room(path.relative_to(PACKAGE).with_suffix("").parts)
    for name in imports(path):
        if name[0] == "deeplung_nb":
            there = room(name[1:])
            same_or_above = there == here or LEVELS.get(there, 0) < LEVELS.get(here, 0)
            assert same_or_above, f"{'.'.join(name)} from room {here or 'level 0'}"
        elif name[0] in HEAVY:
            assert here in HEAVY[name[0]], f"{name[0]} from room {here or 'level 0'}"


def module_of(path):
    """`imaging.scan`; a package goes by its own name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def arrows():
    """Module -> the modules of this package that it imports, in functions and for types too."""
    modules = {module_of(path) for path in FILES} - {"__init__"}
    found = {}
    for path in FILES:
        names = [".".join(name[1:]) for name in imports(path) if name[0] == "deeplung_nb"]
        # `from room import module` names the module, `from module import thing` is in it.
        found[module_of(path)] = {name if name in modules else name.rpartition(".")[0]
                                  for name in names} & modules - {module_of(path)}
    return found


def test_no_module_is_needed_by_what_it_needs():
    try:
        tuple(graphlib.TopologicalSorter(arrows()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_a_circle_would_be_found():
    assert "imaging.scan" in arrows()["imaging.dicom"]
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({**arrows(), "imaging.scan": {"imaging.dicom"}}).prepare()


@pytest.mark.parametrize("module", ["stats.summary", "stats.agreement", "report.figures",
                                    "report.tables", "report.html", "measurements", "runs",
                                    "runs.config", "labels", "cohorts.manifest", "widgets"])
def test_tables_of_readings_need_no_torch(module):
    code = f"import sys, deeplung_nb.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modules_stay_short():
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 420}
    assert long == {}


def test_nothing_is_promised_for_later():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for word in ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error"):
            assert word not in text, f"{path.name}: {word}"
