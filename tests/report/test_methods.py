"""The Methods text says what the settings say: another setting is another text."""

import dataclasses
from types import SimpleNamespace

import pytest

from deeplung_nb.report.methods import describe_methods, list_warnings
from deeplung_nb.runs.config import (
    PROFILES,
    Config,
    NetworkConfig,
    TrainingConfig,
    UNetConfig,
    load_profile,
)

WORDS = {
    "optimiser": "adamw", "schedule": "cosine", "keep": "last", "output": "softmax",
    "trunk": "mobilenet_v2", "precision": "bfloat16", "limits": "regression",
    "pretrained": "elsewhere.pth", "scale_range": (0.7, 1.2), "cohorts": ("phantom", "medseg2"),
    "first": TrainingConfig(max_epochs=3, schedule="cosine"), "baselines": (),
}
"""Another value, where a number will not do."""
BASES = {"paper": load_profile("paper"), "public": load_profile("public"),
         "quick": load_profile("quick")}
SILENT = {
    "paper": {"last_rate", "made_dense"},  # of a cosine; of what is made
    "public": {"momentum", "plateau_factor", "plateau_patience", "stop_learning_rate",
               "rmi_weight", "dice_weight", "dense_blocks", "validation_slices",
               "validation_fraction"},
    "quick": {"momentum", "plateau_factor", "plateau_patience", "stop_learning_rate",
              "rmi_weight", "dice_weight", "made_dense"},
}
"""What has no part in a profile, since another setting leaves it out."""
PARTS = {"network": NetworkConfig, "training": TrainingConfig, "first": TrainingConfig}
NO_PART = {"batch_predict", "profile", "network", "training"}
"""Changes no number, names the settings, or is changed field by field."""


def other(name, value):
    """A value that differs."""
    if name in WORDS and WORDS[name] != value:
        return WORDS[name]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 2
    if value == ():
        return (UNetConfig("unet2d", 16),)
    return {"optimiser": "sgd", "schedule": "plateau", "keep": "best", "output": "sigmoid",
            "trunk": "densenet121", "pretrained": "x.pth", "first": None}[name] \
        if isinstance(value, str) else value + 1


def changes(profile):
    """(name, changed configuration) of every setting that has a part in the numbers."""
    base = BASES[profile]
    for part, kind in PARTS.items():
        given = getattr(base, part)
        for field in dataclasses.fields(kind) if given is not None else ():
            if field.name in SILENT[profile]:
                continue
            value = other(field.name, getattr(given, field.name))
            yield f"{part}.{field.name}", dataclasses.replace(
                base, **{part: dataclasses.replace(given, **{field.name: value})})
    for field in dataclasses.fields(Config):
        if field.name not in NO_PART | SILENT[profile]:
            yield field.name, dataclasses.replace(
                base, **{field.name: other(field.name, getattr(base, field.name))})


@pytest.mark.parametrize("profile", BASES)
def test_each_setting_that_is_changed_changes_the_text(profile):
    said = describe_methods(BASES[profile])
    silent = [name for name, config in changes(profile)
              # validation is said once, and its share of nothing is none
              if not name.startswith("first.use_validation")
              and not name.startswith("first.validation") and describe_methods(config) == said]
    assert silent == []


@pytest.mark.parametrize("profile", BASES)
def test_what_has_no_part_is_not_said(profile):
    text = " ".join(describe_methods(BASES[profile]))
    fit = BASES[profile].training
    assert ("momentum" in text) == (fit.optimiser == "sgd")
    assert ("mutual information" in text) == (fit.region_weight > 0)
    assert ("validation loss" in text) == fit.use_validation


def test_the_weights_of_the_loss_stand_at_their_own_terms():
    paper = BASES["paper"]
    fit = dataclasses.replace(paper.training, rmi_weight=0.7, dice_weight=0.25)
    text = " ".join(describe_methods(dataclasses.replace(paper, training=fit)))
    assert ("0.3 × binary cross-entropy + 0.7 × region mutual information + 0.25 × soft Dice"
            in text)


def test_who_chose_the_settings_is_confessed_for_these_settings_alone():
    quick = BASES["quick"]
    assert "some thirty by the Dice of these very test cases" in " ".join(describe_methods(quick))
    changed = dataclasses.replace(quick, training=dataclasses.replace(quick.training, flip=True))
    text = " ".join(describe_methods(changed))
    assert "some thirty" not in text
    assert "How the settings were chosen is not recorded" in text


def test_external_cases_are_read_as_the_study_reads_them():
    public, paper = (" ".join(describe_methods(BASES[name])) for name in ("public", "paper"))
    assert "External slices were read among their neighbours" in public
    assert "lowest validation loss, by every fold" not in public
    assert "External cases were read by the fold with the lowest validation loss" in paper
    alone = dataclasses.replace(BASES["public"], cohorts=("medseg2",))
    assert "There are no external cases" in " ".join(describe_methods(alone))


def test_a_dense_block_without_imagenet_weights_is_not_the_papers():
    paper = PROFILES["paper"]
    assert paper.pretrained == "densenet121_imagenet"
    for config, warned in ((paper, False), (dataclasses.replace(paper, pretrained=None), True),
                           (PROFILES["public"], False)):
        run = SimpleNamespace(config=config, synthetic=False)
        said = " ".join(list_warnings(run, None))
        assert ("Kaiming initialisation, the paper’s from ImageNet" in said) == warned


def test_who_marked_the_reference_is_said_or_said_to_be_unknown(tmp_path, monkeypatch):
    text = " ".join(describe_methods(load_profile("public")))
    assert "100 axial slices) – one radiologist;" in text
    assert "checked by a senior one" in text
    assert "is not recorded" in " ".join(describe_methods(load_profile("paper")))
    (tmp_path / "cohorts.toml").write_text('[mine]\ntitle = "Our ward"\nreaders = "Ann and Bob"\n')
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path))
    own = dataclasses.replace(load_profile("paper"), cohorts=("mine",))
    assert "Our ward – Ann and Bob." in " ".join(describe_methods(own))
