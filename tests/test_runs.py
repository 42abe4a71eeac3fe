"""Run folders: addressed by content, whole files, clear errors."""

import dataclasses
import shutil

import pytest
import test_architecture

from deeplung_nb import files, measurements, runs
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.report.thumbnails import thumbnail_of
from deeplung_nb.runs import code, open_run, read_run
from deeplung_nb.runs.config import Config, load_profile
from deeplung_nb.runs.registry import manifest_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "a.csv"
    with files.atomic_path(target) as part:
        part.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"

    def break_off():
        with files.atomic_path(target) as part:
            part.write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        break_off()
    assert target.read_text() == "half"
    assert [path.name for path in target.parent.iterdir()] == ["a.csv"]


def test_the_temporary_name_keeps_the_suffixes_that_choose_a_format(tmp_path):
    with files.atomic_path(tmp_path / "mask.nii.gz") as part:
        assert part.name.endswith(".nii.gz")
        part.write_text("x")


def test_the_same_question_finds_the_same_folder(tmp_path):
    a = runs.open_run("quick", results=tmp_path)
    created = a.info()["created"]
    b = runs.open_run("quick", results=tmp_path)
    assert a.folder == b.folder
    assert b.info()["created"] == created
    assert runs.open_run("quick", results=tmp_path / "elsewhere").run_id == a.run_id


def test_another_setting_gets_another_folder(tmp_path):
    config = load_profile("quick")
    other = dataclasses.replace(config, seed=config.seed + 1)
    assert (runs.open_run(config=config, results=tmp_path).run_id
            != runs.open_run(config=other, results=tmp_path).run_id)


def test_another_manifest_gets_another_folder(tmp_path, monkeypatch):
    before = runs.open_run("quick", results=tmp_path).run_id
    shutil.copytree(manifest_folder(), tmp_path / "manifests")
    with (tmp_path / "manifests" / "phantom.csv").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path / "manifests"))
    assert runs.open_run("quick", results=tmp_path).run_id != before


def test_the_code_digest_sees_code_and_not_comments(tmp_path):
    path = tmp_path / "m.py"

    def digest(text):
        path.write_text(text)
        return code.code_without_comments(path, path.stat().st_mtime_ns)

    plain = digest("def f(x):\n    return x + 1\n")
    assert digest('"""Doc."""\n# why\ndef f(x):\n    """One more."""\n    return x + 1\n') == plain
    assert digest("def f(x):\n    return x + 2\n") != plain


def test_another_meaning_of_the_masks_gets_another_folder(tmp_path, monkeypatch):
    before = runs.open_run("quick", results=tmp_path).run_id
    shutil.copytree(manifest_folder(), tmp_path / "manifests")
    path = tmp_path / "manifests" / "cohorts.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(
        'mask_codes = { 1 = "ggo", 2 = "high_opacity" }',
        'mask_codes = { 1 = "high_opacity", 2 = "ggo" }', 1), encoding="utf-8")
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path / "manifests"))
    assert runs.open_run("quick", results=tmp_path).run_id != before


def test_the_code_digest_covers_all_code_on_the_way_to_a_measurement():
    arrows, todo, needed = test_architecture.arrows(), ["learning.experiment"], set()
    while todo:
        module = todo.pop()
        if module not in needed:
            needed.add(module)
            todo += arrows[module]
    phantoms = {name for name in needed if name.startswith("imaging.phantom.")}
    listed = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
              for name in (*runs.MEASURING_CODE, *runs.WITHOUT_NUMBERS)}
    assert listed == needed - phantoms
    assert len(phantoms) > 3


def test_phantom_code_counts_only_where_phantoms_are_used(monkeypatch):
    read = []
    monkeypatch.setattr(code, "code_without_comments",
                        lambda path, changed_ns: read.append(path.name) or "")
    runs.code_digest(("medseg2",))
    assert "painter.py" not in read
    runs.code_digest(("phantom",))
    assert "painter.py" in read


def test_profiles_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_PROFILE", "public")
    monkeypatch.setenv("DEEPLUNG_RESULTS", str(tmp_path))
    monkeypatch.setenv("DEEPLUNG_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"encoder 'mobilenet_v2_imagenet': .* is missing. Unpack"):
        runs.open_run()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "mobilenet_v2_imagenet_encoder_fp32.pt").touch()
    run = runs.open_run()
    assert run.run_id.startswith("public-")
    assert run.data == tmp_path
    assert not run.synthetic
    assert runs.open_run("quick").synthetic


def test_an_unknown_profile_is_named():
    with pytest.raises(ValueError, match="quick, public, rehearsal, paper"):
        load_profile("fast")


def test_a_missing_input_says_which_notebook_makes_it(tmp_path):
    run = runs.open_run("quick", results=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"05_cross_validation\.ipynb"):
        measurements.read(run.measurements_csv)


def test_a_run_says_how_it_was_made(tmp_path):
    run = runs.open_run("quick", results=tmp_path)
    run.record("train_fold_0", device="cpu", seconds_train_fold_0=1.5)
    info = runs.read_run(run.folder).info()
    assert info["device"] == "cpu"
    assert info["config"]["profile"] == "quick"
    assert {"config", "manifests", "code"} <= set(info["digests"])
    assert info["versions"]["torch"].startswith("2.13.0")
    assert info["peak_memory_gb"] > 0


def test_folds_that_end_at_the_same_moment_keep_each_others_facts(tmp_path, monkeypatch):
    """The second reads what is there before the first writes, as processes side by side do."""
    run = runs.open_run("quick", results=tmp_path)
    write = runs.write_text

    def overtaken(path, text):
        monkeypatch.setattr(runs, "write_text", write)
        run.record("train_fold_1", seconds_train_fold_1=2.5)
        write(path, text)

    monkeypatch.setattr(runs, "write_text", overtaken)
    run.record("train_fold_0", seconds_train_fold_0=1.5)
    info = run.info()
    assert (info["seconds_train_fold_0"], info["seconds_train_fold_1"]) == (1.5, 2.5)


def test_checksums_cover_the_folder(tmp_path):
    run = runs.open_run("quick", results=tmp_path)
    run.path("tables", "t.csv").write_text("a\n")
    lines = run.write_checksums().read_text().splitlines()
    assert f"{files.sha256_of(run.folder / 'tables' / 't.csv')}  tables/t.csv" in lines


def test_an_unknown_structure_is_named():
    import numpy as np

    labels = np.array([0, 1, 2, 2])
    assert [int(structure_mask(labels, s).sum()) for s in LESION_STRUCTURES] == [1, 2, 3]
    with pytest.raises(ValueError, match="lung"):
        structure_mask(labels, "lung")


@pytest.mark.parametrize("profile", ["../elsewhere", "..", "a/b", ""])
def test_a_profiles_name_never_leaves_the_results(tmp_path, profile):
    config = dataclasses.replace(load_profile("quick"), profile=profile)
    with pytest.raises(ValueError, match="profile"):
        open_run(config=config, results=tmp_path / "results")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parts", [("..", "x"), ("masks", "../../x.nii.gz"), ("/etc/x",)])
def test_no_path_of_a_run_leaves_its_folder(tmp_path, parts):
    run = open_run("quick", results=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for ask in (run.path, lambda *parts: run.require(*parts, made_by="01")):
        with pytest.raises(ValueError, match="lies outside the run folder"):
            ask(*parts)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"run_id": "x"}', '{"config": 3}',
                                     '{"config": {"profile": "quick"}}'])
def test_a_cut_record_of_a_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json: .*Copy it anew") as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cut_fact_is_named(tmp_path):
    run = open_run("quick", results=tmp_path)
    run.path("facts", "train.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"facts/train\.json: cut"):
        run.info()


@pytest.mark.parametrize(("cohort", "case"), [("..", "x"), ("site", "../../x"), ("site", "")])
def test_a_thumbnail_is_no_way_out_of_the_folder(tmp_path, cohort, case):
    run = open_run("quick", results=tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"private")
    with pytest.raises(ValueError, match=r"case id|cohort"):
        thumbnail_of(run, cohort, case)


def test_a_record_of_an_older_version_is_read_unless_it_used_what_there_is_no_more():
    settings = load_profile("public").to_dict()
    settings["unlabelled"], settings["training"]["pseudo_fraction"] = None, None
    assert Config.from_dict(settings) == load_profile("public")
    settings["training"]["pseudo_fraction"] = 0.2
    with pytest.raises(ValueError, match=r"pseudo_fraction: 0\.2 is of an older version"):
        Config.from_dict(settings)
    with pytest.raises(TypeError, match="found list"):
        Config.from_dict([settings])
