"""Run folders: `results/<profile>-<digest>/`, addressed by what can change `measurements.csv`.

The digest covers the settings, the manifests and the code on the way from a CT to a measurement
(not comments or docstrings, and not figures or tables), so that the same question finds its
answer again, interrupted work resumes, and editing a figure never forces a training.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from deeplung_nb import __version__
from deeplung_nb.files import PART, check_name, sha256_of, write_text
from deeplung_nb.runs.code import digest_of
from deeplung_nb.runs.config import Config, load_profile
from deeplung_nb.runs.registry import (
    cohort_files,
    is_phantom,
    is_simulated,
    read_encoders,
    read_registry,
)
from deeplung_nb.runs.resources import EXAMPLE, PACKAGE_FOLDER, clone, shipped, work_folder

MEASURING_CODE = (
    "kernels.py", "labels.py", "measurements/__init__.py", "measurements/contract.py",
    "measurements/spreadsheets.py", "imaging/grid.py",
    "imaging/scan.py", "imaging/nifti.py", "imaging/folder.py", "imaging/frames.py",
    "imaging/stack.py", "imaging/regrid.py", "imaging/dicom.py", "imaging/io.py",
    "imaging/slices.py",
    "imaging/preprocess.py", "imaging/body.py", "imaging/anatomy.py",
    "imaging/lungs.py", "imaging/regions.py", "imaging/consensus.py", "imaging/integrity.py",
    "imaging/orientation.py", "imaging/dicom_objects.py", "imaging/dicom_masks.py",
    "imaging/plausibility.py", "imaging/made_disease.py", "imaging/shapes.py",
    "cohorts/manifest.py", "cohorts/schema.py", "cohorts/splits.py",
    "cohorts/cases.py", "stats/lesions.py", "stats/overlap.py",
    "stats/surface.py", "network/baselines.py", "network/checkpoint.py", "network/convlstm.py",
    "network/deeplung.py", "network/device.py", "network/fast.py", "network/fused.py",
    "network/fused_training.py", "network/losses.py", "network/pretrained.py",
    "network/trunks.py", "reading/predict.py", "reading/table.py", "reading/volumes.py",
    "learning/dataset.py", "learning/evaluate.py", "learning/experiment.py", "learning/made.py",
    "learning/team.py", "learning/train.py",
)
"""Code that can change measurements.csv, and `imaging/phantom/` where phantoms are used."""

WITHOUT_NUMBERS = ("files.py", "pseudonyms.py", "measurements/columns.py",
                   "measurements/readings.py", "runs/__init__.py", "runs/code.py", "runs/config.py",
                   "runs/progress.py", "runs/registry.py", "runs/resources.py",
                   "workers.py", "learning/watchers.py",
                   "corrections/drawing.py", "corrections/journal.py", "corrections/reading.py",
                   "corrections/tools.py",
                   "imaging/errors.py", "stats/_results.py")
"""What that code imports besides and that changes no number; `config` enters by its values, the
registry by `manifest_digest`."""

REPORTED_PACKAGES = (
    "torch", "monai", "numpy", "numba", "scipy", "pandas", "statsmodels", "SimpleITK", "pydicom",
    "matplotlib", "seaborn", "great_tables",
)


def results_folder() -> Path:
    """Where runs lie: `DEEPLUNG_RESULTS`, else `results/` of the clone or the current folder."""
    return Path(os.environ.get("DEEPLUNG_RESULTS") or work_folder() / "results")


def check_inputs(config: Config, data: Path | None) -> None:
    """That a run's manifests and its data folder are there, before a folder is made for it.

    Raises
    ------
    ValueError
        A manifest or the data folder is missing; the message names both ways to give it.
    """
    for name in config.cohorts:
        if is_phantom(name) or is_simulated(name):
            continue
        if data is None or not data.is_dir():
            found = "none was given" if data is None else f"{data} is no folder"
            raise ValueError(
                f"cohort {name!r} needs its CTs ({found}): give their folder, as in "
                f"'make reproduce PROFILE={config.profile} DATA=<folder>', 'deeplung-nb reproduce "
                f"--profile {config.profile} --data <folder>' or DEEPLUNG_DATA.")
    encoder = read_encoders().get(config.pretrained or "")
    if encoder and not (path := (data or Path()) / "encoders" / encoder["file"]).is_file():
        raise ValueError(
            f"encoder {config.pretrained!r}: {path} is missing. {encoder['how']} (source: "
            f"{encoder['source']}). To do without, give as --profile a JSON file of the settings "
            "with \"pretrained\": null; the run then says so")


def code_digest(cohorts: tuple[str, ...]) -> str:
    """SHA-256 over the code that can change a measurement of these cohorts."""
    files = [PACKAGE_FOLDER / name for name in MEASURING_CODE]
    if any(map(is_phantom, cohorts)):
        files += sorted(PACKAGE_FOLDER.glob("imaging/phantom/*.py"))
    return digest_of(files)


def manifest_digest(cohorts: tuple[str, ...]) -> str:
    """SHA-256 over manifests, splits and mask codes of the named cohorts."""
    digest = hashlib.sha256()
    registry = read_registry()
    for cohort in cohorts:
        codes = registry.get(cohort, {}).get("mask_codes")
        digest.update(json.dumps([cohort, codes], sort_keys=True).encode())
        for path in cohort_files(cohort):
            digest.update(path.name.encode())
            digest.update(path.read_bytes() if path.exists() else b"absent")
    return digest.hexdigest()


def _pretrained_digest(config: Config) -> str:
    if not config.pretrained:
        return "none"
    entry = read_encoders().get(config.pretrained)
    if entry:
        return entry["sha256"]
    path = Path(config.pretrained)
    return sha256_of(path) if path.is_file() else f"absent: {path}"  # the training says so


@dataclass(frozen=True)
class Run:
    """One run: its settings and its folder.

    `data` is the folder that holds the CTs (None where the cohort is generated).
    """

    folder: Path
    config: Config
    data: Path | None

    @property
    def run_id(self) -> str:
        """`<profile>-<digest>`, the folder's name."""
        return self.folder.name

    @property
    def synthetic(self) -> bool:
        """True where no case is a patient: every figure then says so."""
        return self.simulated or all(map(is_phantom, self.config.cohorts))

    @property
    def simulated(self) -> bool:
        """True where there is no CT at all, only simulated readings."""
        return all(map(is_simulated, self.config.cohorts))

    @property
    def shipped(self) -> bool:
        """True of the example inside an installed package, which is not written to."""
        return clone() is None and self.folder.is_relative_to(PACKAGE_FOLDER)

    def path(self, *parts: str) -> Path:
        """A path in the run folder; its parent folder is made.

        Raises
        ------
        ValueError
            It would lie elsewhere, as with a case id of `../x`; the run is the package's own.
        """
        path = self._within(*parts)
        if self.shipped:
            raise ValueError(f"{self.folder}: the example inside the package is not written to. "
                             "'deeplung-nb notebooks <folder>' lays out a copy with its notebooks: "
                             "work there")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _within(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(self.folder)):
            raise ValueError(f"{'/'.join(map(str, parts))}: lies outside the run folder "
                             f"{self.folder}. A case id, a cohort or a network has a name that is "
                             "no name of a file: choose a pseudonym")
        return path

    def fold_folder(self, fold: int, network: str = "deeplung") -> str:
        """Name of a fold's folder in the run folder: `fold-0`, `unet2d/fold-0`."""
        return f"fold-{fold}" if network == "deeplung" else f"{network}/fold-{fold}"

    def require(self, *parts: str, made_by: str) -> Path:
        """A path that must be there already.

        Raises
        ------
        FileNotFoundError
            It is not: the message names the notebook that makes it.
        ValueError
            As `path`.
        """
        path = self._within(*parts)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing. Run notebook {made_by} first; it writes this file "
                f"(profile {self.config.profile!r}, run {self.run_id})."
            )
        return path

    @property
    def measurements_csv(self) -> Path:
        """The table of all measurements of this run, for `measurements.read`.

        Raises
        ------
        FileNotFoundError
            It is not there yet: the message names the notebook that makes it.
        """
        return self.require("measurements.csv", made_by="05_cross_validation.ipynb")

    def info(self) -> dict[str, Any]:
        """What run.json says, with all facts that were recorded since."""
        info = read_record(self.folder / "run.json")
        for path in sorted(self.folder.glob("facts/*.json")):
            facts = read_record(path)
            peak = max(info.get("peak_memory_gb", 0.0), facts.get("peak_memory_gb", 0.0))
            info |= {**facts, "peak_memory_gb": peak}
        return info

    def record(self, work: str, **facts: Any) -> None:
        """Keep the facts (times, device, choices) of one work in `facts/<work>.json`.

        A file for each, so that folds trained side by side don't overwrite each other's. What is
        known already leaves it as it is.
        """
        path = self.path("facts", f"{work}.json")
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if all(name in known and known[name] == value for name, value in facts.items()):
            return
        known.update(facts)
        known["peak_memory_gb"] = max(known.get("peak_memory_gb", 0.0), peak_memory_gb())
        write_text(path, json.dumps(known, indent=2, sort_keys=True) + "\n")

    def write_checksums(self) -> Path:
        """SHA256SUMS over the folder's measurements, figures, tables and report."""
        lines = [
            f"{sha256_of(path)}  {path.relative_to(self.folder).as_posix()}"
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "SHA256SUMS" and not path.name.startswith(PART)
        ]
        target = self.folder / "SHA256SUMS"
        write_text(target, "\n".join(lines) + "\n")
        return target


def peak_memory_gb() -> float:
    """Peak resident memory of this process, GB."""
    # Linux's getrusage keeps, through exec, what the parent held when it forked.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def processor_name() -> str:
    """The processor's model, as the operating system names it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile",
                "amx_bf16", "asimd", "sve", "bf16")
"""Instruction sets by which numerical libraries choose how to compute."""


def cpu_features() -> list[str]:
    """Those of `CPU_FEATURES` that the operating system names; empty where it names none."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return [name for name in CPU_FEATURES if name in line.split(":", 1)[1].split()]
    return []


def package_versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that can change a number."""
    versions = {"python": platform.python_version(), "deeplung_nb": __version__}
    for name in REPORTED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def read_record(path: Path) -> dict[str, Any]:
    """What a run has noted in a file of JSON.

    Raises
    ------
    ValueError
        The file is cut, or of something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise TypeError("no record")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: cut, or not what a run has written ({str(error)[:120]}). Copy "
                         "it anew, or run 'deeplung-nb reproduce'") from error
    return record


def find_run(folder: str | os.PathLike) -> Path:
    """Where a run folder lies; a relative path that is not here may start at the clone.

    `results/example` is the example that comes with the package, where no such folder is here.
    """
    folder = Path(folder)
    if folder.is_absolute() or folder.exists():
        return folder
    return shipped(EXAMPLE) if folder == Path(EXAMPLE) else work_folder() / folder


def read_run(folder: str | os.PathLike, data: str | os.PathLike | None = None) -> Run:
    """A run as it was recorded, whatever the code is today: to look at, not to go on with.

    Parameters
    ----------
    folder
        A run folder, as `find_run` finds it.

    Raises
    ------
    FileNotFoundError, ValueError
        The folder holds no run.json, or one that is cut or of something else.
    """
    folder = find_run(folder)
    record = folder / "run.json"
    if not record.exists():
        raise FileNotFoundError(f"{folder}: no run.json. Expected the folder of a run, as "
                                "DEEPLUNG_RUN=results/example")
    try:
        config = Config.from_dict(read_record(record)["config"])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{record}: not the record of a run ({type(error).__name__}: "
                         f"{str(error)[:120]}). Copy it anew, or run "
                         "'deeplung-nb reproduce'") from error
    return Run(folder.resolve(), config, Path(data).resolve() if data else None)


def open_run(
    profile: str | None = None,
    data: str | os.PathLike | None = None,
    results: str | os.PathLike | None = None,
    config: Config | None = None,
) -> Run:
    """Open the run folder of a profile; make it when this question is asked for the first time.

    Parameters
    ----------
    profile, data, results
        Default to the environment: `DEEPLUNG_PROFILE` (`quick`), `DEEPLUNG_DATA`,
        `DEEPLUNG_RESULTS` (`results_folder`).
    config
        Settings instead of a profile's.

    Raises
    ------
    ValueError
        No such profile, or its name is none of a file, or its cohorts need a data folder that is
        not there.

    Without `profile` and `config`, `DEEPLUNG_RUN` in the environment opens that folder as it was
    recorded (`read_run`).
    """
    if profile is None and config is None and os.environ.get("DEEPLUNG_RUN"):
        return read_run(os.environ["DEEPLUNG_RUN"], data or os.environ.get("DEEPLUNG_DATA") or None)
    config = config or load_profile(profile or os.environ.get("DEEPLUNG_PROFILE") or "quick")
    data = data or os.environ.get("DEEPLUNG_DATA") or None
    results = Path(results) if results else results_folder()
    digests = {
        "config": hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest(),
        "manifests": manifest_digest(config.cohorts),
        "code": code_digest(config.cohorts),
        "pretrained": _pretrained_digest(config),
    }
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    folder = results.resolve() / f"{check_name(config.profile, 'profile')}-{whole[:12]}"
    run = Run(folder, config, Path(data).resolve() if data else None)
    if not folder.joinpath("run.json").exists():
        check_inputs(config, run.data)
        write_text(folder / "run.json", json.dumps({
            "run_id": run.run_id, "config": config.to_dict(), "digests": digests,
            "versions": package_versions(), "seed": config.seed,
            "hardware": {"processor": processor_name(), "cores": os.cpu_count(),
                         "cpu_features": cpu_features(),
                         "system": platform.platform(terse=True)},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }, indent=2, sort_keys=True) + "\n")
    return run
