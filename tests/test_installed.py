"""A wheel, installed in an environment of its own and used away from the clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import nbformat
import pytest

from deeplung_nb import __version__

ROOT = Path(__file__).resolve().parent.parent
BUILD = [sys.executable, "-m", "hatchling", "build"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the sdist, as a package index's users get it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*BUILD, "-t", "sdist", "-d", str(folder)], cwd=ROOT, check=True,
                   capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*BUILD, "-t", "wheel", "-d", str(folder)], cwd=source, check=True,
                   capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel, that sees the packages of this one and not the clone."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder}))
    # A path file inside a folder that a path file names is not read: the clone stays out.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet",
                    "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True)
    return folder / "bin"


@pytest.fixture
def away(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("DEEPLUNG_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(installed, *command, **options):
    program, *arguments = map(str, command)
    return subprocess.run([str(installed / program), *arguments], capture_output=True, text=True,
                          check=False, **options)


def execute(installed, notebook, **environment):
    """Run a notebook with the kernel of that environment, in the notebook's folder."""
    code = ("import sys, nbformat; from nbclient import NotebookClient; "
            "b = nbformat.read(sys.argv[1], 4); "
            "NotebookClient(b, timeout=None, kernel_name='python3').execute(); "
            "nbformat.write(b, sys.argv[1])")
    kernel = installed.parent / "share" / "jupyter"
    spec = kernel / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text('{"argv": ["%s", "-m", "ipykernel_launcher", "-f", "{connection_file}"], '
                    '"display_name": "p", "language": "python"}' % (installed / "python"),
                    encoding="utf-8")
    found = run(installed, "python", "-c", code, notebook.name, cwd=notebook.parent,
                env={**os.environ, "JUPYTER_PATH": str(kernel), **environment})
    assert found.returncode == 0, found.stderr[-2000:]
    return nbformat.read(notebook, 4)


def test_the_wheel_holds_what_commands_need_and_says_both_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        facts = message_from_string(archive.read(metadata).decode())
        terms = [archive.read(name).decode() for name in names if "/licenses/" in name]
    assert {"deeplung_nb/py.typed", "deeplung_nb/shipped/notebooks/07_agreement.ipynb",
            "deeplung_nb/shipped/data_manifests/cohorts.toml",
            "deeplung_nb/shipped/results/example/measurements.csv",
            "deeplung_nb/shipped/docs/paper.md",
            "deeplung_nb/widgets/static/viewer.js"} <= set(names)
    assert any(name.endswith(".nii.gz") and "example/masks" in name for name in names)
    assert not [name for name in names if "checkpoints" in name or name.startswith("tests/")]
    assert facts["License-Expression"] == "MIT AND LicenseRef-deeplung-weights"
    assert any("MIT License" in text for text in terms)
    assert any("non-commercial research" in text and "Radiopaedia" in text for text in terms)
    assert facts["Version"] == __version__


def test_the_commands_work_away_from_the_clone(installed, away):
    assert run(installed, "deeplung-nb", "--version").stdout.strip() == f"deeplung_nb {__version__}"
    where = run(installed, "python", "-c", "import deeplung_nb; print(deeplung_nb.__file__)")
    assert str(installed.parent) in where.stdout
    digest = run(installed, "deeplung-nb", "digest", "results/example")
    assert "| Any lesion (cv) | 30 |" in digest.stdout, digest.stderr
    assert list(away.iterdir()) == []  # nothing is written by looking


def test_a_statisticians_table_is_compared_away_from_the_clone(installed, away):
    (away / "mine.csv").write_text("Fall;A;B\n" + "".join(
        f"F{k};{10 + 3 * k},5;{11 + 3 * k}\n" for k in range(12)), encoding="utf-8")
    made = run(installed, "deeplung-nb", "compare", "mine.csv", "--unit", "mL", "--output", "out")
    assert made.returncode == 0, made.stderr
    assert "The bias of reader “B” against reader “A” was 0.500 mL" in made.stdout
    assert len(list((away / "out").iterdir())) == 8


def test_every_command_explains_itself(installed, away):
    names = re.findall(r"^    (\w[\w-]+)", run(installed, "deeplung-nb", "--help").stdout, re.M)
    assert {"segment", "reproduce", "notebooks", "dashboard", "manifest"} <= set(names)
    for name in names:
        assert "usage: deeplung-nb" in run(installed, "deeplung-nb", name, "--help").stdout


def test_a_student_gets_the_notebooks_and_runs_them_with_the_example(installed, away):
    laid = run(installed, "deeplung-nb", "notebooks", "course")
    assert laid.returncode == 0, laid.stderr
    assert (away / "course" / "exercises.py").is_file()
    assert (away / "course" / "docs" / "statistics.md").is_file()
    for name in ("01_cohorts", "07_agreement"):
        book = execute(installed, away / "course" / f"{name}.ipynb",
                       DEEPLUNG_RUN="results/example")
        assert any(cell.get("outputs") for cell in book.cells)
    assert (away / "course" / "results" / "example" / "tables").is_dir()
    again = run(installed, "deeplung-nb", "notebooks", "course")
    assert again.returncode == 1
    assert "may hold your work" in again.stderr


@pytest.mark.nightly
def test_reproduce_and_manifest_write_here_and_not_into_the_package(installed, away):
    done = run(installed, "deeplung-nb", "reproduce", "--profile", "rehearsal")
    assert done.returncode == 0, done.stderr
    assert list((away / "results").glob("rehearsal-*/report.html"))
    (away / "empty").mkdir()
    refused = run(installed, "deeplung-nb", "manifest", "medseg2", "empty")
    assert refused.returncode == 1
    assert "error: " in refused.stderr
    assert not (away / "data_manifests").exists()


def test_own_manifests_stay_and_are_found_beside_those_of_the_package(installed, away):
    own = away / "data_manifests"
    own.mkdir()
    (own / "medseg2.csv").write_text("mine", encoding="utf-8")
    code = ("from pathlib import Path; from deeplung_nb.runs import registry as r; "
            "print(r.own_manifest_folder()); r.complete_manifests(r.own_manifest_folder()); "
            "print(r.manifest_folder(), 'phantom' in r.read_registry())")
    first, second = run(installed, "python", "-c", code).stdout.splitlines()
    assert first == str(own)
    assert second == f"{own} True"
    assert (own / "medseg2.csv").read_text(encoding="utf-8") == "mine"


def listing(installed):
    inside = Path(run(installed, "python", "-c", "from deeplung_nb.runs.resources import *; "
                      "print(PACKAGE_FOLDER)").stdout.strip())
    return {path: path.stat().st_mtime_ns for path in inside.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_cases_of_the_packaged_example_are_drawn_here(installed, away):
    before = listing(installed)
    code = ("from deeplung_nb.cohorts import cases; from deeplung_nb.runs import read_run\n"
            "cases.write_cohort = lambda specs, folder: print(folder)\n"
            "cases.read_cohort = lambda name, data, verify: name\n"
            "cases.check_apart = print\n"
            "cases.load_cohorts(read_run('results/example'))")
    found = run(installed, "python", "-c", code)
    assert found.stdout.startswith(str(away / "results" / "cohorts")), found.stderr
    assert listing(installed) == before


def test_the_example_inside_the_package_is_never_written_to(installed, away):
    code = ("from deeplung_nb.runs import read_run; run = read_run('results/example'); "
            "print(run.measurements_csv); run.path('tables', 'x.csv')")
    found = run(installed, "python", "-c", code)
    assert found.stdout.strip().endswith("measurements.csv")
    assert "deeplung-nb notebooks <folder>" in found.stderr


def test_the_dashboard_shows_the_packaged_example(installed, away):
    code = ("from deeplung_nb.widgets import show_dashboard; "
            "tabs = show_dashboard('results/example'); print(len(tabs.browser.frame))")
    found = run(installed, "python", "-c", code)
    assert found.stdout.strip() == "42", found.stderr


def test_an_installation_that_is_not_whole_says_so(installed, away):
    packages = Path(run(installed, "python", "-c", "from deeplung_nb.runs.resources import *; "
                        "print(PACKAGE_FOLDER)").stdout.strip()).parent
    shutil.copytree(packages / "deeplung_nb", away / "deeplung_nb",
                    ignore=shutil.ignore_patterns("shipped", "weights"))
    found = run(installed, "python", "-m", "deeplung_nb", "digest", "results/example", cwd=away)
    assert found.returncode == 1
    assert "Install deeplung_nb again from its wheel" in found.stderr
