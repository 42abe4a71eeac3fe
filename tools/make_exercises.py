"""Write the exercises into the notebooks: .venv/bin/python tools/make_exercises.py

E1_exercises.ipynb and E1_solutions.ipynb come from notebooks/exercises.py: cells begin with `# %%`,
text with `# %% [markdown]`; a line that ends with `# solution` and a cell
`# %% [markdown] solution` stand in the solutions only. The questions of the other notebooks come
from `deeplung_nb.course`: they stand before the last cell, and with their answers in the solutions.
"""

import re
from pathlib import Path

import nbformat

from deeplung_nb.course import QUESTIONS

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
MARK = "  # solution"
GAP = '    raise NotImplementedError("your lines are missing in the cell above")'
ONLY_SOLVED = "[markdown] solution"
ANSWERS = "(answers)"
QUESTION = "question-"
ASKED = """## Exercises

Put your answer, a number or a letter in quotes, in the place of the three dots and run the cell. It
says whether the answer is right, or what kind of mistake it is; unfold the hint or the solution."""


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
            if text.endswith(ANSWERS):
                text = text.removesuffix(ANSWERS) + answers()
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


def questions(notebook: str) -> list[nbformat.NotebookNode]:
    """The cells that ask the questions of a notebook, as 05."""
    cells = [nbformat.v4.new_markdown_cell(ASKED, id=f"{QUESTION}{notebook}")]
    for number in (one for one in QUESTIONS if one.startswith(f"{notebook}.")):
        name = f"{QUESTION}{number.replace('.', '-')}"
        question = QUESTIONS[number]
        first = "from deeplung_nb import course\n\n" if len(cells) == 1 else ""
        cells += [nbformat.v4.new_markdown_cell(f"**{number}** {question.asks}", id=name),
                  nbformat.v4.new_code_cell(first + question.cell(number), id=f"{name}-answer")]
    return cells


def with_questions(notebook: nbformat.NotebookNode, number: str) -> nbformat.NotebookNode:
    """A notebook with its questions before its last cell, whatever it had before."""
    own = [cell for cell in notebook.cells if not cell.id.startswith(QUESTION)]
    notebook.cells = [*own[:-1], *questions(number), own[-1]]
    return notebook


def answers() -> str:
    """The solutions of all questions, for the edition that has them."""
    return "\n\n".join(f"**{number}** {question.solution}"
                       for number, question in QUESTIONS.items())


if __name__ == "__main__":
    for number in sorted({one.split(".")[0] for one in QUESTIONS}):
        place, = FOLDER.glob(f"{number}_*.ipynb")
        nbformat.write(with_questions(nbformat.read(place, as_version=4), number), place)
        print(place)
    for name, solved in (("E1_exercises", False), ("E1_solutions", True)):
        nbformat.write(make(solved), FOLDER / f"{name}.ipynb")
        print(FOLDER / f"{name}.ipynb")
