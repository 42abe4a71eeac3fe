"""What the repository promises: pins in step, clean notebooks, nothing of one machine in it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from deeplung_nb import measurements
from deeplung_nb.runs import read_run, registry

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


EXAMPLE = ROOT / "results" / "example"


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def lock():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in (pin.split("==") for pin in pins)}


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements():
    found = project()
    lines = [*found["dependencies"],
             *(line for lines in found["optional-dependencies"].values() for line in lines)]
    return [one for one in map(Requirement, lines) if one.name != "deeplung_nb"]


def test_the_lock_holds_one_version_within_each_range():
    locked = lock()
    for one in requirements():
        assert one.specifier.contains(locked[normal(one.name)]), one
        assert str(one.specifier).startswith("==") == (one.name == "torch"), one


def test_everything_imported_is_a_dependency():
    """A package that only another one brings would be missing the day that one drops it."""
    names = {"SimpleITK": "simpleitk", "docx": "python-docx", "great_tables": "great-tables",
             "PIL": "pillow", "itkwidgets": None}  # in an environment of its own (docs/widgets.md)
    asked = {normal(one.name) for one in requirements()}
    asked |= {"traitlets", "ipython", "markupsafe"}  # ipywidgets and Jinja are made of them
    for path in (ROOT / "deeplung_nb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = [name.name for name in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in found} - sys.stdlib_module_names:
                need = names.get(top, top)
                assert top == "deeplung_nb" or need is None or normal(need) in asked, (path, top)


def test_citation_and_changelog_name_this_version():
    from deeplung_nb import __version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {__version__}\n" in citation
    day = re.search(r"date-released: (\S+)", citation).group(1)
    assert f"## {__version__} ({day})" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_terms_of_every_data_set_stand_in_one_place():
    text = (ROOT / "data_manifests" / "README.md").read_text(encoding="utf-8")
    assert registry.terms_table() in text


def test_torch_is_pinned_exactly_and_brings_nothing_unwanted():
    locked = lock()
    assert locked["torch"] == "2.13.0"
    assert not [name for name in locked if name.startswith(("nvidia", "torchvision", "triton"))]


def test_conda_users_get_the_lock():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "-r requirements.lock" in text
    assert "python=3.11" in text


def test_readme_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make reproduce" in text
    assert "make test" in text
    assert len(text.split()) <= 900


def test_no_large_files_and_no_images_of_patients():
    for path in tracked():
        if not path.exists():
            continue
        assert path.stat().st_size < 500_000 or "weights" in path.parts, path
        if EXAMPLE not in path.parents:  # a synthetic run
            assert not path.name.endswith((".nii", ".nii.gz", ".dcm", ".nrrd")), path


def test_nothing_of_one_machine_is_in_the_files():
    address = re.compile(r"index-url|find-links|/(?:home|root|work|Users|opt)/[\w.-]+/")
    own = Path(__file__).name
    for path in tracked():
        if path.suffix in (".py", ".md", ".toml", ".yml", ".ipynb", ".lock") and path.name != own:
            if path.exists():
                found = address.search(path.read_text(encoding="utf-8"))
                assert not found, f"{path}: {found and found.group()}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_thin_and_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    codes = [cell for cell in cells if cell.cell_type == "code"]
    lines = [[x for x in cell.source.splitlines() if x.strip()] for cell in codes]
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert all(not cell.outputs and cell.execution_count is None for cell in codes)
    assert max(map(len, lines)) <= 8
    n_lines = sum(map(len, lines))
    assert n_lines <= 60
    assert words >= 14 * n_lines
    source = "\n".join(cell.source for cell in codes)
    if not path.stem.startswith("E1"):  # its tasks are functions to fill in
        assert len(re.findall(r"^\s*def ", source, re.M)) <= 1
    assert not re.search(r"pip install|conda install|[\"']/\w+/", source)


def test_the_sequence_is_complete():
    assert [path.name[:2] for path in NOTEBOOKS] == [
        *(f"{k:02d}" for k in range(14)), "E1", "E1", "E2", "da"]


def test_the_example_is_synthetic_and_small():
    run = read_run("results/example")
    assert run.folder == EXAMPLE
    assert run.synthetic
    kept = [path for path in tracked() if EXAMPLE in path.parents]
    assert 0 < sum(path.stat().st_size for path in kept) < 400_000
    readers = set(measurements.read(run.measurements_csv).reader)
    assert {"expert", "model", "unet2d", "unet3d", "ensemble"} <= readers


def test_the_numbers_of_the_docs_are_those_of_the_example_run():
    """`tools/make_example.py` records the run; `python -m deeplung_nb digest` gives its tables."""
    from deeplung_nb.report.digest import write_digest

    measured = measurements.read(read_run("results/example").measurements_csv)
    tables = [table for table in write_digest(measured).strip().split("\n\n")
              if table.startswith("| structure")]
    text = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")
    assert len(tables) == 2
    for table in tables:
        assert table in text


def test_every_picture_of_the_docs_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"


def test_the_lock_of_hashes_is_of_the_same_packages():
    """All but torch, of which each package index has a build of its own."""
    text = (ROOT / "requirements-hashes.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.\-]+)==(\S+) \\((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)$",
                      text, re.MULTILINE)
    assert {normal(name): version for name, version, _ in pins} == {
        name: version for name, version in lock().items() if name != "torch"}
    assert "://" not in text
