"""The notebooks that need no torch, from the run that is recorded in the repository."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from deeplung_nb.reproduce import NotebookError, run_notebook
from deeplung_nb.runs import open_run, read_run
from deeplung_nb.runs.resources import shipped

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A copy of results/example: notebooks write their figures into the run."""
    folder = tmp_path_factory.mktemp("results") / "example"
    shutil.copytree(ROOT / "results" / "example", folder,
                    ignore=shutil.ignore_patterns("figures", "tables", "notebooks", ".*"))
    return read_run(folder)


@pytest.fixture
def no_torch(tmp_path, monkeypatch):
    """Importing torch fails in the notebooks' kernels."""
    (tmp_path / "torch.py").write_text("raise ImportError('this machine has no torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(("name", "made"), [
    ("07_agreement", "tables/agreement.csv"),
    ("dashboard", "run.json"),
    # With torch `test_reproduce` runs them all.
    pytest.param("09_tables", "tables/published.csv", marks=pytest.mark.nightly),
    pytest.param("11_follow_up", "run.json", marks=pytest.mark.nightly),
    pytest.param("12_harder_tables", "run.json", marks=pytest.mark.nightly),
    # The chests of the example are drawn for these two.
    pytest.param("08_figures", "figures/fig_i_agreement_external.pdf", marks=pytest.mark.nightly),
    pytest.param("10_look_at_cases", "figures/slice_profile_median.pdf", marks=pytest.mark.nightly),
    ("E1_solutions", "run.json"),
])
def test_a_reader_without_torch_can_start_here(example, no_torch, name, made):
    run_notebook(shipped("notebooks") / f"{name}.ipynb", example)
    assert (example.folder / made).exists()


@pytest.mark.parametrize("name", ["00_start_here", "07_agreement"])
def test_plain_jupyter_runs_a_notebook_from_anywhere(example, tmp_path, name):
    """The package is installed in the environment: no path is set, the folder is another one."""
    shutil.copy(shipped("notebooks") / f"{name}.ipynb", tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute",
         "--output", "done.ipynb", f"{name}.ipynb"],
        cwd=tmp_path, env={**environment, "DEEPLUNG_RUN": str(example.folder)}, check=True)
    cells = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells
    assert any(cell.get("outputs") for cell in cells)


def test_the_command_works_outside_of_the_clone(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run([sys.executable, "-m", "deeplung_nb", "--help"], cwd=tmp_path,
                           env=environment, capture_output=True, text=True, check=True)
    assert "segment" in shown.stdout


def test_torch_is_really_absent_there(example, no_torch, tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import torch")])
    nbformat.write(book, tmp_path / "99_torch.ipynb")
    with pytest.raises(NotebookError, match="this machine has no torch"):
        run_notebook(tmp_path / "99_torch.ipynb", example)


@pytest.fixture(scope="module")
def exercises():
    place = ROOT / "tools" / "make_exercises.py"
    spec = importlib.util.spec_from_file_location("make_exercises", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "solved"), [("E1_exercises", False), ("E1_solutions", True)])
def test_exercises_are_made_from_their_source(exercises, name, solved):
    found = nbformat.read(shipped("notebooks") / f"{name}.ipynb", as_version=4)
    assert found.cells == exercises.make(solved).cells, "run tools/make_exercises.py"


LESSONS = [*(f"{k:02d}" for k in range(14)), "E2"]


@pytest.mark.parametrize("number", LESSONS)
def test_questions_are_made_from_their_source(exercises, number):
    place, = shipped("notebooks").glob(f"{number}_*.ipynb")
    found = nbformat.read(place, as_version=4)
    wanted = exercises.with_questions(nbformat.read(place, as_version=4), number)
    assert found.cells == wanted.cells, "run tools/make_exercises.py"


@pytest.mark.parametrize("number", LESSONS)
def test_each_lesson_says_what_it_takes_lets_predict_and_asks(number):
    place, = shipped("notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(place, as_version=4).cells
    for word in ("*You will learn*", "*Time:*", "*Needs:*"):
        assert word in cells[0].source
    predicted = [k for k, cell in enumerate(cells) if "**Predict first.**" in cell.source]
    assert predicted
    assert all(cells[k + 1].cell_type == "code" for k in predicted)
    assert 2 <= sum("course.check(" in cell.source for cell in cells) <= 3


def test_every_exercise_has_an_answer_in_the_solutions_only(exercises):
    asked = [path.name.split("_")[0] for path in sorted(shipped("notebooks").glob("*.ipynb"))
             if "**To think about.**" in path.read_text(encoding="utf-8")]
    assert len(asked) >= 13
    open_, solved = ("\n".join(cell.source for cell in exercises.make(way).cells)
                     for way in (False, True))
    assert [name for name in asked if f"**{name}** " not in solved] == []
    assert "**00** " not in open_
    assert "**05.1** " not in open_
    assert "**05.1** " in solved


def test_exercises_use_the_run_that_is_named(exercises, example, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_RUN", str(example.folder))
    names = {}
    first = next(cell for cell in exercises.make(True).cells if cell.cell_type == "code")
    exec(first.source, names)
    assert names["run"].folder == example.folder


def test_an_unsolved_exercise_does_not_pass_its_check(exercises):
    """Each check, alone, after all the other solutions."""
    codes = [[cell.source for cell in exercises.make(solved).cells if cell.cell_type == "code"]
             for solved in (False, True)]
    gaps = [k for k, (open_, solved) in enumerate(zip(*codes, strict=True)) if open_ != solved]
    assert len(gaps) == 6
    for gap in gaps:
        names = {"__name__": "exercise"}
        for k, source in enumerate(codes[1]):
            if k == gap + 1:
                verdict = eval(source, names)
                assert not verdict
                assert "your lines are missing" in verdict.words
                exec(codes[1][gap], names)
                assert eval(source, names), source
                break
            exec(codes[0][k] if k == gap else source, names)


def test_a_recorded_run_is_opened_whatever_the_code_is_today(example, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPLUNG_RUN", str(example.folder))
    assert open_run().folder == example.folder
    assert open_run("quick", results=tmp_path).folder != example.folder
    monkeypatch.setenv("DEEPLUNG_RUN", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"absent: no run\.json"):
        open_run()
