"""Put each fault of tests/mutants.toml into a copy and run its tests: `make mutants`

A fault survives where they pass. Words after the command choose mutants by what they are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv*", "results", "site", "dist", "__pycache__", ".*_cache")


def dies(mutant: dict[str, object], copy: Path, shared: str) -> bool:
    """Whether one of the mutant's tests fails."""
    path = copy / mutant["file"]
    text = path.read_text(encoding="utf-8")
    n = text.count(mutant["old"])
    if n != 1:
        sys.exit(f"{mutant['file']}: {mutant['old']!r} stands there {n} times, expected once. "
                 "Correct tests/mutants.toml")
    path.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m",
             "not nightly", *mutant["tests"]], cwd=copy, capture_output=True, text=True,
            env={**os.environ, "DEEPLUNG_DATA": shared, "PYTHONPATH": str(copy)}, check=False)
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    return done.returncode == 1


def main(words: list[str]) -> int:
    """Print what each mutant met; how many survive."""
    mutants = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    chosen = [mutant for mutant in mutants if not words or any(w in mutant["what"] for w in words)]
    shared = os.environ.get("DEEPLUNG_DATA", str(ROOT.parent / "shared" / "data"))
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "main"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copytree(ROOT / "results" / "example", copy / "results" / "example")
        for mutant in chosen:
            dead = dies(mutant, copy, shared)
            survived += not dead
            print("dies    " if dead else "SURVIVES", mutant["what"], flush=True)
    print(f"{survived} of {len(chosen)} survive")
    return survived


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
