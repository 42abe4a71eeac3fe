"""Write E1_exercises.ipynb and E1_solutions.ipynb: .venv/bin/python tools/make_exercises.py

Both come from notebooks/exercises.py: cells begin with `# %%`, text with `# %% [markdown]`; a line
that ends with `# solution` and a cell `# %% [markdown] solution` stand in the solutions only.
"""

import re
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
MARK = "  # solution"
GAP = '    raise NotImplementedError("your lines are missing in the cell above")'
ONLY_SOLVED = "[markdown] solution"


def _code(lines: list[str], solved: bool) -> str:
    if solved:
        return "\n".join(line.removesuffix(MARK) for line in lines)
    kept: list[str] = []
    for line in lines:
        if not line.endswith(MARK):
            kept.append(line)
        elif not kept or kept[-1] != GAP:
            kept.append(GAP)
    return "\n".join(kept)


def make(solved: bool) -> nbformat.NotebookNode:
    """The notebook with or without the solutions."""
    source = (FOLDER / "exercises.py").read_text(encoding="utf-8")
    cells = []
    for number, part in enumerate(re.split(r"^# %%", source, flags=re.M)[1:]):
        kind, _, body = part.partition("\n")
        if ONLY_SOLVED in kind and not solved:
            continue
        lines = body.strip("\n").splitlines()
        if "[markdown]" in kind:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
            if number == 0 and solved:
                text = text.replace("# E1 · Exercises", "# E1 · Exercises, with solutions", 1)
            cell = nbformat.v4.new_markdown_cell(text)
        else:
            cell = nbformat.v4.new_code_cell(_code(lines, solved))
        cell["id"] = f"exercise-{number:02d}"
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })


if __name__ == "__main__":
    for name, solved in (("E1_exercises", False), ("E1_solutions", True)):
        nbformat.write(make(solved), FOLDER / f"{name}.ipynb")
        print(FOLDER / f"{name}.ipynb")
