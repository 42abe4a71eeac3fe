"""A reader study: who reads which case when, in which arm, under which name; frozen beforehand.

A study is a folder: `plan.json` with its hash, and `readings/<made name>/<reader>/`, a reading each
(`reading.Reading`), whose journal says what was shown. What has been read stands there alone, so
that a study goes on after any interruption.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import __version__
from deeplung_nb.corrections.journal import JournalError, read_journal
from deeplung_nb.corrections.reading import JOURNAL, NOTHING, Reading, ReadingError
from deeplung_nb.files import check_name, write_text
from deeplung_nb.imaging.scan import LesionMask, Scan

PLAN = "plan.json"
ARMS = {
    "unaided": "drawn from nothing, the automatic marks hidden",
    "aided": "drawn from nothing, the automatic marks shown",
    "correcting": "the automatic marks corrected",
}
"""Arm -> what a reader sees and begins with."""


@dataclass(frozen=True)
class StudyCase:
    """A case of a study, as it is read for one session: no reader sees its name."""

    scan: Scan
    automatic: LesionMask
    lungs: np.ndarray | None = None


@dataclass(frozen=True)
class Session:
    """One reading that is planned."""

    reader: str
    number: int
    """In the order of the reader, from 1 on."""
    block: int
    """Blocks are `washout_days` apart."""
    case: str
    arm: str
    occasion: int
    """2 where the reader has read the case in this arm before."""
    name: str
    """What the reader knows the case by."""


def _digest(plan: dict[str, Any]) -> str:
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class StudyError(ValueError):
    """A study that can't be planned, or not go on like this: says why, and what to do."""


def _plan_sessions(cases: list[str], turned: np.ndarray, reader: str, place: int,
                   arms: Sequence[str], repeats: float, rng: np.random.Generator) -> list[Session]:
    """The blocks of a reader: each case in each arm, then some of them again.

    In a block the arms are spread over the cases (by `turned`, a number for each case, of all
    readers), and turned from block to block and from reader to reader: who of two readers sees a
    case in which arm first is exchanged.
    """
    todo: list[tuple[int, str, str, int]] = []
    for block in range(len(arms)):
        for k in rng.permutation(len(cases)).tolist():
            arm = arms[(int(turned[k]) + place + block) % len(arms)]
            todo.append((block + 1, cases[int(k)], arm, 1))
    again = rng.choice(len(cases), math.ceil(repeats * len(cases)), replace=False)
    for number, k in enumerate(rng.permutation(again).tolist()):
        todo.append((len(arms) + 1, cases[int(k)], arms[(number + place) % len(arms)], 2))
    names = rng.permutation(np.arange(100, 1000))[:len(todo)]
    return [Session(reader, number, block, case, arm, occasion, f"reading-{name}")
            for number, ((block, case, arm, occasion), name) in
            enumerate(zip(todo, names, strict=True), 1)]


class ReaderStudy:
    """A study that was planned; the same call opens it again.

    Parameters
    ----------
    folder
        Of the study.
    cases
        Their names, in any order.
    readers
        Initials or made names.
    load
        Gives the `StudyCase` of a name.
    seed
        Decides all orders.
    arms
        Of `ARMS`; each reader reads each case once in each.
    repeats
        Share of the cases that each reader reads twice in one arm.
    washout_days
        Between blocks, so that a case is forgotten before it comes again.
    hypothesis, margin
        What is to be shown, declared before anybody has read.

    Raises
    ------
    StudyError
        Names that can't be, or a folder whose plan is another one.
    """

    def __init__(self, folder: str | Path, cases: Sequence[str], readers: Sequence[str],
                 load: Callable[[str], StudyCase], *, seed: int,
                 arms: Sequence[str] = ("unaided", "correcting"), repeats: float = 0.2,
                 washout_days: float = 14.0, hypothesis: str = "",
                 margin: str = "") -> None:
        self.folder, self.load = Path(folder), load
        for name, given, fewest in (("cases", cases, 2), ("readers", readers, 1),
                                    ("arms", arms, 1)):
            if len(set(given)) != len(given) or len(given) < fewest:
                raise StudyError(f"{name} {list(given)}: expected {fewest} or more, each once")
        for reader in readers:
            check_name(reader, "reader")
        unknown = [arm for arm in arms if arm not in ARMS]
        if unknown:
            raise StudyError(f"arms {unknown}: expected of {', '.join(ARMS)}")
        if not 0 <= repeats <= 1 or washout_days < 0:
            raise StudyError(f"repeats {repeats}, washout_days {washout_days}: expected a share "
                             "from 0 to 1, and days from 0 on")
        # Three blocks of all cases need as many names.
        if len(cases) * (len(arms) + 1) > 900:
            raise StudyError(f"{len(cases)} cases in {len(arms)} arms: more than 900 readings each")
        ordered = sorted(cases)
        turned = np.random.default_rng(seed).permutation(len(ordered))
        sessions = [session for place, reader in enumerate(readers)
                    for session in _plan_sessions(
                        ordered, turned, reader, place, arms, repeats,
                        np.random.default_rng([seed, place]))]
        self.plan: dict[str, Any] = {
            "cases": ordered, "readers": list(readers), "arms": {arm: ARMS[arm] for arm in arms},
            "seed": seed, "repeats": repeats, "washout_days": washout_days,
            "hypothesis": hypothesis, "margin": margin,
            "sessions": [dataclasses.asdict(session) for session in sessions]}
        self.sessions = sessions
        self.sha256 = _digest(self.plan)
        self._freeze()

    def _freeze(self) -> None:
        path = self.folder / PLAN
        if not path.exists():
            write_text(path, json.dumps({
                "sha256": self.sha256, "package": __version__,
                "frozen": datetime.now(UTC).isoformat(timespec="seconds"), "plan": self.plan},
                indent=1, sort_keys=True) + "\n")
            return
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["sha256"] != _digest(kept["plan"]):
            raise StudyError(f"{path}: changed since it was frozen. Restore it from a copy")
        if kept["sha256"] == self.sha256:
            return
        changed = [name for name in self.plan if self.plan[name] != kept["plan"].get(name)]
        raise StudyError(f"{path}: this study was planned otherwise ({', '.join(changed)} changed) "
                         f"and frozen at {kept['frozen']}. Give what was planned, or another "
                         "folder for another study")

    def place(self, session: Session) -> Path:
        """The folder of a session's reading."""
        return self.folder / "readings" / session.name / session.reader

    def _events(self, session: Session) -> list[dict[str, Any]]:
        path = self.place(session) / JOURNAL
        try:
            return read_journal(path)[0] if path.exists() else []
        except JournalError as error:
            raise StudyError(str(error)) from None

    def finished_at(self, session: Session) -> datetime | None:
        """When a session was finished; None where it is not."""
        found = None
        for event in self._events(session):
            if event["event"] == "finish":
                found = datetime.fromisoformat(event["at"])
            elif event["event"] == "reopen":
                found = None
        return found

    def of(self, reader: str) -> list[Session]:
        """The sessions of a reader, in order.

        Raises
        ------
        StudyError
            Nobody of this name reads.
        """
        mine = [session for session in self.sessions if session.reader == reader]
        if not mine:
            names = ", ".join(self.plan["readers"])
            raise StudyError(f"reader {reader!r}: expected one of {names}")
        return mine

    def next(self, reader: str, now: datetime | None = None) -> Session | None:
        """What a reader is to read now; None where all is read.

        Raises
        ------
        StudyError
            The washout is not over: says until when.
        """
        last: dict[int, datetime] = {}
        for session in self.of(reader):
            done = self.finished_at(session)
            if done is not None:
                last[session.block] = max(done, last.get(session.block, done))
                continue
            before = [at for block, at in last.items() if block < session.block]
            until = max(before) + timedelta(days=self.plan["washout_days"]) if before else None
            if until is not None and (now or datetime.now(UTC)) < until:
                raise StudyError(f"{reader} has finished block {session.block - 1}: the next one "
                                 f"begins {until:%Y-%m-%d %H:%M} UTC, so that the cases are "
                                 "forgotten")
            return session
        return None

    def open(self, session: Session) -> tuple[Reading, dict[str, np.ndarray]]:
        """Begin a session, or go on with it: its reading, and the marks that may be shown beside.

        The scan bears the made name; in an arm that hides the automatic marks they are in neither.

        Raises
        ------
        StudyError
            The case can't be read; it is not named, since a reader sees this.
        ReadingError
            Its reading is open elsewhere, or damaged.
        """
        try:
            case = self.load(session.case)
        except Exception as error:
            raise StudyError(f"{session.name} can't be read ({type(error).__name__}): ask who runs "
                             "the study, whose plan has the case's own name") from None
        scan = dataclasses.replace(case.scan, case_id=session.name, source="", notes=())
        start, shown = None, {}
        if session.arm == "correcting":
            start = case.automatic.labels
        elif session.arm == "aided":
            shown = {"automatic": case.automatic.labels}
        reading = Reading.open(
            scan, session.reader, self.place(session).parent, start=start,
            start_from="automatic" if start is not None else NOTHING, lungs=case.lungs,
            facts={"study": self.sha256, "session": session.number, "arm": session.arm})
        if reading.begin["facts"].get("study") != self.sha256:
            reading.close()
            raise ReadingError(f"{reading.folder}: a reading of another study")
        if not reading.finished:
            reading.note("shown", masks=[*shown, *(["start"] if start is not None else [])])
        return reading, shown

    def status(self) -> pd.DataFrame:
        """A row a reader: `readings, finished, begun, seconds`."""
        rows = []
        for reader in self.plan["readers"]:
            mine = self.of(reader)
            events = [self._events(session) for session in mine]
            rows.append({
                "reader": reader, "readings": len(mine),
                "finished": sum(self.finished_at(session) is not None for session in mine),
                "begun": sum(bool(some) for some in events),
                "seconds": round(sum(float(event.get("seconds", 0.0))
                                     for some in events for event in some), 1)})
        return pd.DataFrame(rows)

    def finished(self) -> list[Session]:
        """The sessions that are read."""
        return [session for session in self.sessions if self.finished_at(session) is not None]
