"""A random sample of mutmut's mutants of one package, and which of them no test finds.

.venv/bin/python tools/sample_mutants.py stats|imaging|reading|cohorts [N] [SEED]

`make mutmut` installs mutmut in an environment of its own and runs this. Mutants of words
(messages, labels) are passed over: no test should hold a message letter by letter. A survivor is a
fault that no test finds, or one that changes nothing to be seen: which, a person decides.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv*", "results", "site", "dist", "__pycache__", ".*_cache")
TESTS = {
    "stats": "stats_*",
    "imaging": "anatomy body dicom files folder hostile integrity lungs made_disease malformed "
               "phantom plausibility preprocess scan external_slices packaged",
    "reading": "predict segment lung_head measurements face packaged",
    "cohorts": "manifest splits public published_data rehearsal external_slices hostile dataset "
               "experiment",
}
"""Package -> the names of its tests."""
SLOW = ("tests/test_stats_coverage.py", "tests/test_stats_package.py")
"""Simulations, and a walk through a fresh environment: not once for each mutant."""
SETTINGS = """\
[mutmut]
source_paths=
    deeplung_nb
only_mutate=
    deeplung_nb/{package}/*
do_not_mutate_patterns=
    raise .*
pytest_add_cli_args=
    -m
    not nightly and not browser
    -p
    no:cacheprovider
also_copy=
    data_manifests
    docs
    notebooks
    results
    tools
    README.md
pytest_add_cli_args_test_selection=
{tests}
"""


def run(*words: str, cwd: Path) -> str:
    """What mutmut says."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPLUNG_DATA": os.environ.get(
        "DEEPLUNG_DATA", str(ROOT.parent / "shared" / "data"))}
    done = subprocess.run([sys.executable, "-m", "mutmut", *words], cwd=cwd, env=environment,
                          capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def of_words(diff: str) -> bool:
    """Whether a mutant changes nothing but the letters of a string."""
    old, new = (["".join(line[1:].split()) for line in diff.splitlines()
                 if line.startswith(sign) and not line.startswith(sign * 3)] for sign in "-+")
    bare = [re.sub(r"XX", "", "".join(lines)).lower() for lines in (old, new)]
    return bare[0] == bare[1]


def main(package: str, n: int = 60, seed: int = 1) -> int:
    """Print the fate of each mutant, and the survivors' differences."""
    tests = sorted({str(path.relative_to(ROOT)) for name in TESTS[package].split()
                    for path in (ROOT / "tests").glob(f"test_{name}.py")} - set(SLOW))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "main"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copytree(ROOT / "results" / "example", copy / "results" / "example")
        (copy / "setup.cfg").write_text(SETTINGS.format(
            package=package, tests="\n".join(f"    {name}" for name in tests)), encoding="utf-8")
        first = run("run", "--max-children", "1", "none", cwd=copy)  # makes them all, runs none
        metas = sorted((copy / "mutants" / "deeplung_nb" / package).rglob("*.meta"))
        names = [name for path in metas for name in json.loads(
            path.read_text(encoding="utf-8"))["exit_code_by_key"]]
        if not names or not (copy / "mutants" / "mutmut-stats.json").exists():
            sys.exit(first)
        random.Random(seed).shuffle(names)
        chosen: dict[str, str] = {}
        for name in names:
            if len(chosen) == n:
                break
            diff = run("show", name, cwd=copy)
            if not of_words(diff):
                chosen[name] = diff
        print(f"{len(chosen)} of {len(names)} mutants, by {len(tests)} files of tests", flush=True)
        run("run", "--max-children", "1", *chosen, cwd=copy)
        codes = {name: code for path in metas for name, code in json.loads(
            path.read_text(encoding="utf-8"))["exit_code_by_key"].items()}
    survivors = [name for name in chosen if codes[name] in (0, 33)]  # 33: no test comes there
    for name in survivors:
        print(f"\n{'NO TEST' if codes[name] == 33 else 'SURVIVES'} {name}\n" + "\n".join(
            line for line in chosen[name].splitlines()[1:] if line[:1] in "+-@"))
    unknown = [name for name in chosen if codes[name] is None]
    print(f"\n{len(survivors)} of {len(chosen) - len(unknown)} survive"
          + f"; {len(unknown)} were not run" * bool(unknown))
    return len(survivors)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TESTS:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:4]))
