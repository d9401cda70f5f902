"""A model card whose numbers were typed by hand, or are of another checkpoint, misleads whoever decides by it."""

import argparse
import json

import pytest
import yaml
from huggingface_hub import ModelCard

from gptface import GPTFaceConfig, GPTFaceForPreTraining
from gptface.cli import main
from gptface.evaluation import suite
from gptface.evaluation.card import model_card, short_card
from gptface.evaluation.cli import Kind

MATCHING = {
    "images": 443,
    "auc": 0.8125,
    "words_only_auc": 0.501,
    "auc_counterfactual": 0.7001,
    "words_only_auc_counterfactual": 0.55,
    "auc_by_attribute": 0.66,
    "code_loss_15": 4.4321,
    "code_loss_50": 4.9,
    "word_loss_15": 1.5,
    "mouth_loss": 5.0,
}
RECOGNITION = {
    "images": 443,
    "accuracy": 0.891,
    "balanced_accuracy": 0.7162,
    "balanced_labels": 29,
    "f1": 0.51,
    "ap": None,
    "ece": 0.0213,
    "ece_as_stored": 0.0456,
}
ARM = {"success": 0.25, "side_effect": 0.04, "lpips": 0.0812, "seconds": 1.5}
EDITING = {
    "edit": "not_smiling",
    "images": 100,
    "lacking": 80,
    "arms": {
        "none": ARM,
        "both": {**ARM, "success": 0.5, "gain_over_none": {"difference": 0.25, "low": 0.1111, "high": 0.3}},
    },
}
GROUPS = {
    "images": 680,
    "accuracy": 0.8,
    "Male": 0.85,
    "groups": {
        "age": {
            "0-17": {"accuracy": 0.7, "images": 80, "Male": 0.7},
            "18-29": {"accuracy": 0.9, "images": 600, "Male": 0.9123},
            "60+": {"accuracy": None, "images": 0, "Male": None},
        }
    },
}
DATA = {"expression": "validation/fer48", "groups": "train/utkface128"}
REPORTS = {"matching": MATCHING, "attributes": RECOGNITION, "editing_not_smiling": EDITING, "groups": GROUPS}


def write(folder, reports, model="abc"):
    for name, figures in reports.items():
        data = DATA.get(name, "validation/celeba178")
        command = f"gptface evaluate {name.split('_')[0]} --data DATA_DIR/{data}.parquet --json"
        (folder / f"{name}.json").write_text(json.dumps({"command": command, "model": model, "report": figures}))
    return folder


@pytest.fixture
def card(tmp_path, tiny_checkpoint) -> str:
    return model_card(write(tmp_path, REPORTS), tiny_checkpoint)


def test_figures_stand_under_the_command_that_gave_them(card):
    section = card.split("### Image-text matching")[1].split("###")[0]
    assert "gptface evaluate matching --data DATA_DIR/validation/celeba178.parquet --json" in section
    assert "443 faces; data: CelebA, people who are not in the training set." in section
    for value in ("0.812", "0.501", "4.432"):
        assert f"| {value} |" in section


def test_edits_show_their_gain_with_its_interval(card):
    row = next(line for line in card.splitlines() if line.startswith("| not smiling | both"))
    assert row == "| not smiling | both (default) | 80 | 0.500 | +0.250 (+0.111 to +0.300) | 0.040 | 0.081 | 1.500 |"


def test_what_the_critic_is_good_for_has_its_table(tmp_path, tiny_checkpoint):
    arm = {**ARM, "match_score": 3.0, "realness": -1.25, "frechet": 12.5}
    nobody = {**arm, "success": None, "realness": None, "frechet": None}
    figures = {"edit": "no_beard", "images": 15, "photo_frechet": 14.0, "arms": {"confidence": arm, "real=2": nobody}}
    card = model_card(write(tmp_path, {"realism_no_beard": figures}), tiny_checkpoint)
    assert "| no beard | the photos, not edited | – | – | – | – | 14.000 | – |" in card
    assert "| no beard | by confidence alone | 0.250 | 0.040 | 3.000 | -1.250 | 12.500 | 1.500 |" in card
    assert "| no beard | real=2 | – | 0.040 | 3.000 | – | – | 1.500 |" in card


def test_what_the_eye_sees_of_edits_has_its_tables(tmp_path, tiny_checkpoint):
    figures = {
        "sharpness": {"ratio": 0.4321, "low": 0.3},
        "seam": {"delta_e": 2.5, "lpips": None},
        "area": {"ears": 0.001, "background": 0.0, "clothes": 0.02, "hair_iou": 0.9},
    }
    reports = {kind: {"images": 12, "blond_hair": {"edited": 9, **entry}} for kind, entry in figures.items()}
    card = model_card(write(tmp_path, reports), tiny_checkpoint)
    assert "| blond hair | 9 | 0.432 | 0.300 |" in card and "| blond hair | 9 | 2.500 | – |" in card
    assert "| blond hair | 9 | 0.001 | 0.000 | 0.020 | 0.900 |" in card


def test_groups_and_the_gap_between_them(card):
    section = card.split("## Results by group")[1].split("## Calibration")[0]
    assert "| age | 18-29 | 600 | 0.912 |" in section and "| age | 60+ | 0 | – |" in section
    assert "Largest differences in the accuracy of Male: age 0.212 (18-29 to 0-17)." in section


def test_calibration(card):
    assert "| `attributes` | 0.046 | 0.021 |" in card and "| `expression` |" not in card


def test_facts_about_the_checkpoint_are_read_from_it(card, tiny_checkpoint):
    assert "64-px face pictures (2 layers of 32, 60 image codes" in " ".join(card.split())
    assert '"attributes" (5) and "expression" (7)' in " ".join(card.split())


def test_what_a_card_must_say(card):
    for heading in (
        "Intended use",
        "Out of scope",
        "Consent",
        "Data and terms",
        "Limits",
        "How to reproduce",
        "Licence",
    ):
        assert f"\n## {heading}\n" in card
    for word in (
        "Identification",
        "Surveillance",
        "Deception",
        "CelebA",
        "FER2013",
        "TAEF2-MIT.txt",
        "--no-provenance",
    ):
        assert word in card
    assert "$" not in card


def test_what_was_not_measured_is_named(card):
    note = next(line for line in card.splitlines() if line.startswith("Not measured"))
    assert "`tokenizer.json`" in note and "`generation.json`" in note and "`attributes.json`" not in note
    assert "### Image tokenizer" not in card


def test_nothing_measured_at_all(tmp_path, tiny_checkpoint):
    card = model_card(tmp_path, tiny_checkpoint)
    assert "Not measured for this checkpoint (`groups.json`)." in card and "(`training.json`)" in card
    assert "model-index" not in card


def test_metadata_is_what_the_hub_reads(card, tmp_path):
    (tmp_path / "card.md").write_text(card)
    data = ModelCard.load(tmp_path / "card.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert (data.license, data.license_name) == ("other", "research-only")
    assert data.license_link == "LICENSES/LicenseRef-GPTFace-Weights.txt"
    assert data.datasets == ["CelebA", "FER2013"] and "face-editing" in data.tags
    assert data.metrics == ["accuracy", "balanced_accuracy", "f1"]
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {"accuracy": 0.891, "balanced_accuracy": 0.7162, "f1": 0.51}
    assert data.eval_results[0].dataset_name == "CelebA, people who are not in the training set"


def test_a_bad_figure_becomes_a_limit(tmp_path, tiny_checkpoint, card):
    assert "hardly tells" not in card and "no gain of guidance" not in card
    worse = {"difference": 0.02, "low": -0.05, "high": 0.1}
    arms = {**EDITING["arms"], "both": {**ARM, "gain_over_none": worse}}
    changed = {"matching": {**MATCHING, "auc": 0.52}, "editing_not_smiling": {**EDITING, "arms": arms}}
    limits = model_card(write(tmp_path, changed), tiny_checkpoint).split("## Limits")[1]
    assert "(AUC 0.520; the words alone 0.501)" in limits
    assert "Edit “not smiling”: no gain of guidance over none has been shown" in limits


def test_facts_of_the_training(tmp_path, tiny_checkpoint):
    facts = {
        "history": "one run",
        "sequences": 27000,
        "faces": 14165,
        "hours": 2,
        "hardware": "two CPU cores",
        "reader_faces": 2786,
        "reader_hours": 2,
    }
    card = model_card(write(tmp_path, {"training": facts}), tiny_checkpoint)
    assert "27,000 sequences of 14,165 different faces" in card
    write(tmp_path, {"training": {"sequences": 1}})
    with pytest.raises(ValueError, match=r"training\.json lacks .*faces, hours"):
        model_card(tmp_path, tiny_checkpoint)


def test_reports_of_two_checkpoints_are_not_mixed(tmp_path, tiny_checkpoint):
    write(tmp_path, {"matching": MATCHING})
    write(tmp_path, {"groups": GROUPS}, model="def")
    with pytest.raises(ValueError, match=r"different checkpoints: .*matching\.json \(abc\)"):
        model_card(tmp_path, tiny_checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"report": {}}', "must hold"),
        ("[]", "must hold"),
        ('{"command": "gptface", "report": {"auc": 1}}', r"matching\.json lacks the figure 'words_only_auc'"),
    ],
)
def test_files_that_are_no_reports(tmp_path, tiny_checkpoint, content, message):
    (tmp_path / "matching.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        model_card(tmp_path, tiny_checkpoint)


def test_the_command(tmp_path, tiny_checkpoint, capsys):
    folder = write(tmp_path, REPORTS)
    arguments = ["card", str(folder), "--model", str(tiny_checkpoint)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, "-o", str(tmp_path / "model_card.md")]) == 0
    assert (tmp_path / "model_card.md").read_text() == printed
    assert main(["card", str(tmp_path / "nowhere")]) == 2
    assert "gptface.evaluation.suite" in capsys.readouterr().err


def test_the_short_card_claims_nothing():
    metadata = yaml.safe_load(short_card().split("---")[1])
    assert metadata["license_name"] == "research-only" and "datasets" not in metadata and "model-index" not in metadata


def kind(name: str, *options: str) -> Kind:
    """A kind of evaluation that is run by [`told`]."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        for option in options:
            parser.add_argument(option, **({"action": "store_true"} if option == "--draw" else {}))

    return Kind(name, "", name, add_options)


def told(options: argparse.Namespace) -> dict:
    """What a protocol was called with."""
    if options.protocol == "broken":
        raise ValueError("no such head")
    return {"images": 3, "data": options.data, "kind": options.kind}


def test_the_suite_runs_every_registered_kind_and_goes_on_after_a_failure(
    tmp_path, monkeypatch, tiny_checkpoint, capsys
):
    kinds = (kind("groups"), kind("broken"), kind("new", "--limit"), kind("editing", "--edit", "--arms", "--draw"))
    monkeypatch.setattr(suite, "KINDS", kinds)
    monkeypatch.setattr(suite, "evaluate", told)
    arguments = [str(tmp_path / "data"), str(tmp_path / "out"), "--model", str(tiny_checkpoint), "--limit", "3"]
    assert suite.main(arguments) == 2
    assert "broken: no such head" in capsys.readouterr().err
    written = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    assert set(written) == {"groups", "new", *suite.RUNS["editing"]}
    # folders of this machine do not belong into the card; an option goes to the kinds that know it
    path = "DATA_DIR/validation/celeba178.parquet"
    assert written["new"]["command"] == f"gptface evaluate new --data {path} --model MODEL --limit 3 --json"
    assert written["new"]["report"]["data"] == str(tmp_path / "data" / "validation" / "celeba178.parquet")
    assert written["groups"]["command"].split()[4] == "DATA_DIR/train/utkface128.parquet"
    assert len({entry["model"] for entry in written.values()}) == 1
    assert "--draw" in written["editing_beard_drawn"]["command"].split()
    assert "--draw" not in written["editing_beard"]["command"].split()
    assert suite.main([*arguments, "--only", "editing_beard"]) == 0


def test_the_suite_knows_the_real_kinds():
    """Their names are those of the card's sections; a kind of another name would be measured and not shown."""
    assert {"attributes", "caption", "editing", "expression", "generation", "groups", "inpaint"} <= set(suite.kinds())
    assert {"area", "matching", "saliency", "seam", "sharpness", "tokenizer", "unmask"} <= set(suite.kinds())
    with pytest.raises(SystemExit):
        suite.main(["data", "out", "--only", "nothing"])


def test_expression_by_data_set_and_the_error_of_the_age(tmp_path, tiny_checkpoint):
    """One figure for two kinds of photos would hide the worse."""
    better, worse = {**RECOGNITION, "accuracy": 0.8111}, {**RECOGNITION, "accuracy": 0.6222}
    groups = json.loads(json.dumps(GROUPS)) | {"age_error": 7.25}
    for value, error in (("0-17", 5.5), ("18-29", 6.0), ("60+", 11.0)):
        groups["groups"]["age"][value]["age_error"] = error
    write(tmp_path, {"expression_rafdb100": better, "expression_ferplus48": worse, "groups": groups})
    card = model_card(tmp_path, tiny_checkpoint)
    assert "| accuracy | 0.811 |" in card and "| accuracy | 0.622 |" in card
    assert "| `expression`, rafdb100 | 0.046 | 0.021 |" in card and "| `expression`, ferplus48 |" in card
    assert (
        "accuracy of Male | mean error of the age, years |" in card and "| age | 0-17 | 80 | 0.700 | 5.500 |" in card
    )
    assert "Largest differences in the mean error of the age, years: age 5.500 (60+ to 0-17)." in card
    assert len(yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]) == 2


def test_every_trained_head_says_its_data_and_terms(tmp_path, tiny_checkpoint):
    card = model_card(tmp_path, tiny_checkpoint)
    assert "| expression head, reads codes | FER2013" in card and "pixel reader |" not in card
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint, image_reader={"channels": [8, 8, 8], "adapter_rank": 2})
    age = {"labels": ["age"], "problem_type": "regression", "trained": True}
    heads = {**config.heads, "age": age}
    config.heads = {name: {**head, "input": "pixels"} for name, head in heads.items()}
    GPTFaceForPreTraining(config).save_pretrained(tmp_path / "model")
    card = model_card(tmp_path, tmp_path / "model")
    row = next(line for line in card.splitlines() if line.startswith("| expression head, reads pixels |"))
    assert "RAF-DB" in row and "FER+" in row and "forbids redistribution" in row
    assert "| age head, reads pixels | UTKFace" in card and "| pixel reader |" in card
    assert "were left out of the training of the pixel reader" in " ".join(card.split())


def test_the_suite_measures_expression_on_both_data_sets(tmp_path, monkeypatch, tiny_checkpoint):
    monkeypatch.setattr(suite, "KINDS", (kind("expression"),))
    monkeypatch.setattr(suite, "evaluate", told)
    assert suite.main([str(tmp_path), str(tmp_path / "out"), "--model", str(tiny_checkpoint)]) == 0
    commands = {file.stem: json.loads(file.read_text())["command"] for file in (tmp_path / "out").iterdir()}
    assert {name: command.split("--data ")[1].split()[0] for name, command in commands.items()} == {
        f"expression_{name}": f"DATA_DIR/validation/{name}.parquet" for name in ("rafdb100", "ferplus48")
    }
