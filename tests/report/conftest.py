"""A run folder, made-up measurements and times."""

from __future__ import annotations

import pytest

from tests.report.fakes import FakeRun, fake_measurements, fake_timings


@pytest.fixture
def run(tmp_path):
    fake = FakeRun(tmp_path / "quick-0123456789ab")
    fake.path("run.json").write_text("{}", encoding="utf-8")
    return fake


@pytest.fixture(scope="module")
def measured():
    return fake_measurements()


@pytest.fixture(scope="module")
def timings():
    return fake_timings()
