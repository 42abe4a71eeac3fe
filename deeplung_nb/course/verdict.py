"""What a check says: right, or what kind of mistake, with a hint and the solution folded away."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Verdict:
    """What a check says; true where the answer is right.

    `answered` is false where there was nothing to judge: no answer yet, or no data to ask about.
    """

    right: bool
    words: str
    hint: str = ""
    solution: str = ""
    answered: bool = True

    def __bool__(self) -> bool:
        return self.right

    @property
    def _begin(self) -> tuple[str, str]:
        if not self.answered:
            return "✎", "Your turn."
        return ("✓", "Right.") if self.right else ("✗", "Not yet.")

    def __repr__(self) -> str:
        return f"{self._begin[1]} {self.words}" + (f"\nHint: {self.hint}" if self.hint else "")

    def _repr_html_(self) -> str:
        sign, begin = self._begin
        folded = "".join(f"<details><summary>{name}</summary>{escape(text)}</details>"
                         for name, text in (("Hint", self.hint), ("Solution", self.solution))
                         if text)
        return f"<p>{sign} <b>{begin}</b> {escape(self.words)}</p>{folded}"
