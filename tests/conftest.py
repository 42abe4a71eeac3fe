"""Fixtures for all tests: shared data where it stands, and no network."""

import os
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


LONGEST = ("test_reproduce.py", "test_scaling.py", "test_widgets_browser.py",
           "test_cohort_browser.py", "test_accessibility.py", "test_segment.py",
           "test_corrector_browser.py", "test_side_by_side.py", "test_team.py",
           "test_corrected.py", "test_page_browser.py")
"""Files that take minutes: begun first, so that two processes end together."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST
               else len(LONGEST))


@pytest.fixture(scope="session")
def shared_data():
    """`shared_data("medseg2")`: a folder of the development data, or a skip that says why."""
    base = Path(os.environ.get("DEEPLUNG_DATA") or SHARED / "data")

    def find(name: str) -> Path:
        if not (base / name).exists():
            pytest.skip(f"development data {name!r} is not at {base} (set DEEPLUNG_DATA)")
        return base / name

    return find


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    from tests.browser import ARGUMENTS, CHROMIUM
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Any connection off this machine fails the test that makes it."""
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family not in (socket.AF_INET, socket.AF_INET6) or str(address[0]) in (
            "127.0.0.1", "::1", "localhost")
        if not local:
            raise RuntimeError(f"a test tried to reach {address[0]}: tests need no network")
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """Settings of the caller's shell do not leak into tests."""
    for name in ("DEEPLUNG_RUN", "DEEPLUNG_PROFILE", "DEEPLUNG_RESULTS", "DEEPLUNG_MANIFESTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _own_key(monkeypatch, tmp_path_factory):
    """Made names are of a key of the tests, never of the user's."""
    monkeypatch.setenv("DEEPLUNG_KEY_FOLDER", str(tmp_path_factory.getbasetemp() / "key"))


@pytest.fixture(autouse=True)
def _threads_of_the_caller():
    """The number of threads that a training was set to is not that of the tests after it."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def chest_file(tmp_path_factory):
    """A synthetic chest as a NIfTI file: `ct.nii.gz`."""
    from deeplung_nb.imaging.io import write_scan
    from deeplung_nb.imaging.phantom.make import make_phantom
    from deeplung_nb.imaging.phantom.spec import read_specs
    from deeplung_nb.runs.resources import PACKAGE_FOLDER

    path = tmp_path_factory.mktemp("chest") / "ct.nii.gz"
    spec = read_specs(PACKAGE_FOLDER.parent / "data_manifests" / "phantom.csv")[1]
    write_scan(make_phantom(spec).scan, path)
    return path


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory):
    """A tiny network with random weights, that says it was trained on synthetic chests."""
    import torch

    from deeplung_nb.network.checkpoint import describe_training, save_network
    from deeplung_nb.network.deeplung import DeepLungNet
    from deeplung_nb.runs.config import NetworkConfig, load_profile

    torch.manual_seed(1)
    network = DeepLungNet(NetworkConfig(image_size=32, n_neighbours=1, dense_blocks=1, hidden=2))
    path = tmp_path_factory.mktemp("run") / "fold-0" / "checkpoint.pt"
    save_network(network, path, describe_training(load_profile("quick")))
    return path
