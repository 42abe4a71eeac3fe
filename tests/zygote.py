"""A process that forks for each order on its standard input: works that can be killed, fast.

An order is a line of JSON: {"work": name, "arguments": {...}} and, if wanted, when it dies:
"seconds" (after so long) or "nth" (at its nth rename or unlink); "file_size" (bytes a file may
have, as on a full disk), "no_privileges" (root obeys the rights of files). The answer: {"code",
"seconds", "said"}, code -9 for a killed one.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from dying import die_at

import deeplung_nb.__main__ as command_line
from deeplung_nb.cohorts import adapters  # noqa: F401
from deeplung_nb.files import atomic_path, explain
from deeplung_nb.learning import release
from deeplung_nb.measurements import read
from deeplung_nb.reading import segment as reading  # noqa: F401
from deeplung_nb.report.explore import Question, answer
from deeplung_nb.report.export import export
from deeplung_nb.runs.config import load_profile


def command(arguments):
    """A command of the package."""
    code = command_line.main(arguments)
    if code:
        raise SystemExit(code)


def export_answer(table, folder):
    """One answer, as files."""
    export(answer(read(table), Question(structure="ggo")), Path(folder), "# code")


def train_packaged(checkpoint, output, results):
    """`train-packaged` whose trainings are copies of a checkpoint."""
    def quickly(run, progress):
        for fold in range(2):
            with atomic_path(run.path(run.fold_folder(fold), "checkpoint.pt")) as part:
                part.write_bytes(Path(checkpoint).read_bytes())
        return pd.DataFrame(columns=["structure", "status", "case_id", "patient_id", "reader",
                                     "volume_ml", "expert", "model"])

    release.load_profile = lambda _: load_profile("quick")
    release.load_cohorts = lambda run: []
    release.richest_folds = lambda run, cohorts, n: list(range(n))
    release.cross_validate = quickly
    release.unseen_volumes = lambda *_: []
    release.train_packaged(Path(results), Path(output), results=Path(results), progress=False,
                            networks=2, name="tiny")


def drop_capabilities():
    """Root without capabilities may write where its rights say so, and nowhere else (Linux)."""
    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    header, none = Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(header), none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def work(order, said):
    """In the child: never returns."""
    sys.stdout = sys.stderr = os.fdopen(said, "w")
    code = 1
    try:
        if order.get("nth"):
            die_at(order["nth"])
        if order.get("file_size"):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"],) * 2)
        if order.get("no_privileges"):
            drop_capabilities()
        globals()[order["work"]](**order["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        said = explain(error) if isinstance(error, OSError) else error
        print(f"{type(error).__name__}: {said}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    """Orders until the input ends."""
    torch.set_num_threads(1)  # no pool of threads may live in a process that forks
    for line in sys.stdin:
        order = json.loads(line)
        start = time.monotonic()
        told, tell = os.pipe()  # which no limit of a file's size ends; a message is short
        child = os.fork()
        if child == 0:
            work(order, tell)
        os.close(tell)
        if order.get("seconds") is not None:
            time.sleep(order["seconds"])
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        with os.fdopen(told, "rb") as stream:
            said = stream.read().decode("utf-8", "replace")
        print(json.dumps({"code": os.waitstatus_to_exitcode(status),
                          "seconds": time.monotonic() - start, "said": said}), flush=True)


if __name__ == "__main__":  # doctest imports every module
    serve()
