"""Fine-tuning: any label set, options do what they say, a stopped run ends in the same weights, the result opens."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import EvalPrediction, pipeline

from gptface import (
    GPTFaceConfig,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForPreTraining,
    GPTFaceProcessor,
    training,
)
from gptface.cli import main
from gptface.data.augmentation import FaceAugmentation
from gptface.data.classification_data import ClassificationData, load_classification_data
from gptface.data.labels import VOTES
from gptface.evaluation.card import model_card
from gptface.training.classification_loss import ClassificationLoss
from gptface.training.finetuning import (
    FineTuner,
    FineTuningCollator,
    FineTuningConfig,
    distance_from_head,
    finetune,
    freeze_parameters,
    mixed_faces,
    prepare_model,
    validation_scores,
)

ROWS = 24
RECIPES = Path(training.__file__).parent / "recipes"
#: As in the README: queries and values of the transformer, not of the adapters or the heads.
LORA_LAYERS = r"gptface\.layers\.\d+\.attention\.(query|value)"


def picture(row, size=64, mode="RGB"):
    """Noise that is bright where the row is even."""
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    noise = np.random.default_rng(row).integers(0, 120, shape)
    data = io.BytesIO()
    Image.fromarray((noise + 135 * (row % 2 == 0)).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def write(path, columns, rows=ROWS, **options):
    images = [{"bytes": picture(row, **options), "path": None} for row in range(rows)]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return str(path)


@pytest.fixture
def attributes(tmp_path):
    even = [int(row % 2 == 0) for row in range(ROWS)]
    columns = {"identity": [row // 4 for row in range(ROWS)], "Bright": even, "Dark": [1 - value for value in even]}
    return write(tmp_path / "attributes.parquet", columns)


@pytest.fixture
def expressions(tmp_path):
    return write(
        tmp_path / "emotions.parquet", {"emotion": [("happy", "sad")[r % 2] for r in range(ROWS)]}, size=48, mode="L"
    )


@pytest.fixture(scope="module")
def pixel_checkpoint(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with a pixel reader, which no head reads by yet."""
    folder = tmp_path_factory.mktemp("pixels")
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint, image_reader={"channels": [8, 8, 8], "adapter_rank": 2})
    shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("config*", "model*"))
    GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint, config=config).save_pretrained(folder)
    return folder


def ferplus(path, votes, majority):
    """Rows with the columns of FER+: grey pictures of 48 pixels, a majority, ten columns of votes."""
    table = {"expression": majority, **{name: [row.get(name, 0) for row in votes] for name in VOTES}}
    return write(path, table, rows=len(votes), size=48, mode="L")


@pytest.fixture
def recipe(tmp_path, tiny_checkpoint):
    def make(train, output="output", steps=4, **fields):
        arguments = {"per_device_train_batch_size": 4, "learning_rate": 2e-3, "save_strategy": "no"}
        arguments |= {"max_steps": steps, **fields.pop("arguments", {})}
        fields = {"start_from": str(tiny_checkpoint), "arguments": arguments, **fields}
        return FineTuningConfig(output_dir=str(tmp_path / output), train=[train], **fields)

    return make


def test_new_labels_from_columns_open_in_the_pipeline_and_the_other_head_is_kept(recipe, attributes, tiny_checkpoint):
    folder = finetune("attributes", recipe(attributes, steps=30, holdout=0.34))
    config = json.loads((folder / "config.json").read_text())
    head = config["heads"]["attributes"]
    assert head["labels"] == ["Bright", "Dark"] and head["trained"] and config["id2label"]["1"] == "Dark"
    assert head["temperature"] > 0 and len(head["thresholds"]) == 2
    assert config["classification_head"] == "attributes" and (folder / "gptface_hub.py").is_file()
    before = GPTFaceForPreTraining.from_pretrained(tiny_checkpoint)
    after = GPTFaceForFacialExpression.from_pretrained(folder)
    assert after.config.heads["expression"]["trained"]
    assert torch.allclose(
        after.classifiers["expression"].output.weight, before.classifiers["expression"].output.weight, atol=1e-3
    )
    classify = pipeline("face-attribute-classification", model=str(folder))
    faces = [Image.open(io.BytesIO(picture(row))) for row in (2, 3)]
    bright, dark = classify(faces, aligned=True, top_k=1)
    assert (bright[0]["label"], dark[0]["label"]) == ("Bright", "Dark")


@pytest.mark.report("A missing folder asks the Hub for 50 seconds; training and evaluation keep silent")
def test_fine_tuning_says_how_it_goes(recipe, attributes, capsys, monkeypatch):
    """After each epoch the accuracy on people held out is printed; on a terminal there is a bar."""
    finetune("attributes", recipe(attributes, holdout=0.34))
    assert "'eval_balanced_accuracy'" in capsys.readouterr().out
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    finetune("attributes", recipe(attributes, output="seen"))
    assert "4/4" in capsys.readouterr().err


def test_validation_scores_leave_out_what_is_unknown():
    classes = validation_scores(
        EvalPrediction(np.array([[2.0, 1], [0, 1], [3, 1], [1, 0]]), np.array([0, 0, 1, -100]))
    )
    assert classes == pytest.approx({"accuracy": 1 / 3, "balanced_accuracy": 0.25})
    logits, truth = np.array([[1.0, -1], [1, -1], [-1, 1]]), np.array([[1, 0], [0, -1], [0, 0]])
    scores = validation_scores(EvalPrediction(logits, truth))
    assert scores == pytest.approx({"accuracy": 3 / 5, "balanced_accuracy": (0.75 + 0.5) / 2})


def test_a_recipe_says_what_a_fresh_head_is(recipe, expressions, tmp_path):
    folder = finetune("expression", recipe(expressions, reader="convolution", mixup=0.3))
    model = GPTFaceForFacialExpression.from_pretrained(folder)
    assert model.config.heads["expression"]["reader"] == "convolution"
    assert model.config.heads["expression"]["trained"] and hasattr(model.classifiers["expression"], "blocks")
    # labels of their own with a few faces do not inherit its hundreds of thousands of parameters, the same labels go
    # on
    moods = {"mood": [("calm", "loud")[row % 2] for row in range(ROWS)]}
    others = write(tmp_path / "moods.parquet", moods, size=48, mode="L")
    for data, labels, expected in ((expressions, None, "convolution"), (others, "mood", "attention")):
        config = recipe(data, output=expected, start_from=str(folder), labels=labels)
        assert prepare_model("expression", config, seed=0)[0].config.heads["expression"]["reader"] == expected
    with pytest.raises(ValueError, match="reader must be one of"):
        recipe(expressions, reader="conv")


def test_classes_from_a_string_column(recipe, expressions):
    config = recipe(expressions, loss={"class_balance": 0.5, "focal_gamma": 1.0, "label_smoothing": 0.1}, mixup=0.3)
    folder = finetune("expression", config)
    # both are labels of the checkpoint's head, which is kept with all its labels
    model = GPTFaceForFacialExpression.from_pretrained(folder)
    assert (
        "surprise" in model.config.heads["expression"]["labels"]
        and "thresholds" not in model.config.heads["expression"]
    )
    config = recipe(expressions, output="other", start_from=str(folder), labels="emotion", freeze="backbone")
    assert finetune("expression", config).exists()


@pytest.mark.parametrize("augmentation", [None, {"erasing": 1.0}])
def test_a_stopped_run_ends_in_the_same_weights(recipe, attributes, augmentation):
    options = {
        "augmentation": augmentation,
        "mixup": 0.4,
        "layer_decay": 0.7,
        "arguments": {"lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 2},
    }
    whole = finetune("attributes", recipe(attributes, "whole", **options))
    finetune("attributes", recipe(attributes, "stopped", steps=2, **options))
    resumed = finetune("attributes", recipe(attributes, "stopped", **options))
    weights = [load_file(folder / "model.safetensors") for folder in (whole, resumed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_another_seed_trains_another_model(recipe, attributes):
    folders = [finetune("attributes", recipe(attributes, f"seed{s}", arguments={"seed": s})) for s in (1, 2)]
    weights = [load_file(folder / "model.safetensors")["classifiers.attributes.output.weight"] for folder in folders]
    assert not torch.equal(*weights)


def test_freezing(tiny_model):
    def trainable(freeze):
        model = tiny_model(GPTFaceForFaceAttributeClassification)
        freeze_parameters(model, freeze)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    everything, head = trainable("nothing"), trainable("backbone")
    assert head and all(name.startswith("classifiers.attributes.") for name in head)
    assert everything - trainable("embeddings") == {n for n in everything if n.startswith("gptface.embeddings.")}
    assert {n for n in trainable(1) if "layers.0." in n or "embeddings" in n} == set()
    assert {n for n in trainable(1) if "layers.1." in n} == {n for n in everything if "layers.1." in n}
    with pytest.raises(ValueError, match="2"):
        trainable(3)


def test_a_pixel_reader_is_used_and_the_backbone_stays(recipe, expressions, tiny_checkpoint, pixel_checkpoint):
    """Who fine-tunes recognition must find editing as it was."""
    folder = finetune("expression", recipe(expressions, start_from=str(pixel_checkpoint), layer_decay=0.9))
    model = GPTFaceForFacialExpression.from_pretrained(folder)
    head = model.config.heads["expression"]
    assert head["input"] == "pixels" and head["trained"]
    before, after = (load_file(path / "model.safetensors") for path in (pixel_checkpoint, folder))
    changed = {
        name for name in before if name in after and not torch.equal(before[name].half().float(), after[name].float())
    }
    assert changed and all(name.startswith(("gptface.pixel_reader.", "classifiers.expression.")) for name in changed)
    codes = recipe(expressions, "codes", start_from=str(pixel_checkpoint), input="codes")
    assert prepare_model("expression", codes, seed=0)[0].config.heads["expression"]["input"] == "codes"
    with pytest.raises(ValueError, match="no pixel reader"):
        prepare_model("expression", recipe(expressions, start_from=str(tiny_checkpoint), input="pixels"), seed=0)
    assert distance_from_head("gptface.pixel_reader.adapters.0.up.up", 2) == 2
    assert distance_from_head("gptface.pixel_reader.stem.0.0.weight", 2) == 3


def test_learning_rates_decay_towards_the_embeddings(tiny_model, tmp_path):
    from transformers import TrainingArguments

    model = tiny_model(GPTFaceForFaceAttributeClassification)
    arguments = TrainingArguments(str(tmp_path), learning_rate=1.0, weight_decay=0.1, report_to="none")
    tuner = FineTuner(model=model, args=arguments, loss=ClassificationLoss(), weights=None, layer_decay=0.5)
    rates = {id(p): g["lr"] for g in tuner.create_optimizer().param_groups for p in g["params"]}
    names = dict(model.named_parameters())
    assert rates[id(names["classifiers.attributes.output.weight"])] == 1.0
    assert rates[id(names["gptface.layers.1.attention.query.weight"])] == 0.5
    assert rates[id(names["gptface.layers.0.attention.query.weight"])] == 0.25
    assert rates[id(names["gptface.embeddings.code_embeddings.weight"])] == 0.125
    assert len(rates) == sum(p.requires_grad for p in model.parameters())
    assert distance_from_head("gptface.norm.weight", 2) == 0


def test_losses_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 3, 0, -100])
    total, count = ClassificationLoss(label_smoothing=0.2)(logits, classes)
    expected = torch.nn.functional.cross_entropy(logits, classes, label_smoothing=0.2, ignore_index=-100)
    assert total.sum() / count.sum() == pytest.approx(float(expected))
    labels = torch.tensor([[1, 0, -1, 1]] * 6)
    total, count = ClassificationLoss()(logits, labels)
    known = labels >= 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    assert total.sum() / count.sum() == pytest.approx(float(expected))


def test_focal_loss_looks_away_from_what_is_right_already():
    logits, classes = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0])
    plain, focal = (ClassificationLoss(focal_gamma=gamma)(logits, classes)[0] for gamma in (0.0, 2.0))
    assert focal[0] / plain[0] < 1e-3 and focal[1] / plain[1] > 0.9
    labels = torch.tensor([[1, 1]] * 2)
    plain, focal = (ClassificationLoss(focal_gamma=gamma)(logits - 2, labels)[0] for gamma in (0.0, 2.0))
    assert (focal < plain).all()


def test_class_weights_favour_what_is_rare():
    weights = ClassificationLoss(class_balance=1.0).weights(np.array([0] * 9 + [1, -100]), 2)
    assert weights[1] / weights[0] == pytest.approx(9)
    assert ClassificationLoss(class_balance=1.0).weights(np.array([[1], [0], [0], [-1]]), 1).tolist() == [2.0]
    assert ClassificationLoss().weights(np.array([0, 1]), 2) is None
    with pytest.raises(ValueError, match="label_smoothing"):
        ClassificationLoss(label_smoothing=1.0)


def test_augmentation_keeps_grey_grey_and_is_repeatable(face_picture):
    change = FaceAugmentation(erasing=1.0)
    grey = face_picture.convert("L").convert("RGB")
    first, again, other = (np.asarray(change(grey, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert first.shape == np.asarray(grey).shape and (first == first[..., :1]).all()
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    still = FaceAugmentation(flip=0, colour=0, rotation=0, scale=0, shift=0, erasing=0, grey=0)
    assert np.array_equal(np.asarray(still(face_picture, np.random.default_rng(0))), np.asarray(face_picture))
    with pytest.raises(ValueError, match="erased_area"):
        FaceAugmentation(erased_area=(0.5, 0.1))


def test_mixup_is_a_line_between_two_faces(tiny_model):
    model = tiny_model(GPTFaceForFaceAttributeClassification)
    codes = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(0))
    embeddings = model.gptface.embeddings.embed_codes(codes)
    mixed = mixed_faces(model, {"image_codes": codes}, torch.tensor([1.0, 0.75, 0.5]))["image_embeds"]
    assert torch.equal(mixed[0], embeddings[0])
    assert torch.allclose(mixed[2], (embeddings[2] + embeddings[0]) / 2)
    logits = model(image_codes=codes, image_embeds=embeddings).logits
    assert torch.allclose(logits, model(image_codes=codes).logits, atol=1e-5)


def test_a_damaged_picture_leaves_its_batch_not_the_run(attributes):
    data = load_classification_data([attributes], True)
    data.pictures[1] = data.pictures[1][:50]
    collate = FineTuningCollator(data, 64, FaceAugmentation(), mixup=0.2)
    batch = collate([{"row": row, "epoch": 0} for row in (0, 1, 2)])
    assert batch["pixel_values"].shape == (2, 3, 64, 64) and len(batch["labels"]) == len(batch["mix"]) == 2
    plain = collate([{"row": row, "epoch": -1} for row in (0, 2)])
    assert "mix" not in plain and torch.equal(
        plain["pixel_values"], collate([{"row": r, "epoch": -1} for r in (0, 2)])["pixel_values"]
    )
    with pytest.raises(ValueError, match="rows"):
        collate([{"row": 1, "epoch": 0}])


def test_people_are_not_split(attributes):
    data = load_classification_data([attributes], True)
    kept, held_out = data.split(np.arange(ROWS), 0.34, seed=0)
    assert len(held_out) == 8 and not set(data.people[kept]) & set(data.people[held_out])
    assert sorted([*kept, *held_out]) == list(range(ROWS))


def test_class_label_columns_are_read_by_name(tmp_path):
    features = {"emotion": {"names": ["sad", "happy"], "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": picture(0), "path": None}] * 3, "emotion": [0, 1, -1]})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "faces.parquet")
    data = load_classification_data([tmp_path / "faces.parquet"], False, names=["angry", "happy", "sad"])
    assert data.names == ["angry", "happy", "sad"] and data.targets.tolist() == [2, 1, -100]


def test_classes_from_subfolders_and_from_their_codes(tmp_path, tiny_checkpoint):
    """
    Who has sorted photos into folders can fine-tune on them; a damaged first one must not decide how all of them lie.
    """
    for row in range(4):
        folder = tmp_path / "faces" / ("calm", "loud")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.png").write_bytes(picture(row, size=48))
    (tmp_path / "faces" / "calm" / "0.png").write_bytes(b"no picture")
    data = load_classification_data([tmp_path / "faces"], False)
    assert data.names == ["calm", "loud"] and data.targets.tolist() == [0, 0, 1, 1] and set(data.layouts) == {"fer48"}
    tokenizer = GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint).image_tokenizer
    codes = load_classification_data([tmp_path / "faces"], False, tokenizer=tokenizer, codes_folder=tmp_path / "codes")
    assert (
        codes.names == data.names and codes.targets.tolist() == [0, 1, 1] and codes.row_numbers.tolist() == [1, 2, 3]
    )


def test_sets_with_different_columns_join_and_leave_unknown_what_they_do_not_say(tmp_path, attributes):
    other = write(tmp_path / "other.parquet", {"Bright": [1, 0], "Glasses": [0, 1]}, rows=2)
    data = load_classification_data([attributes, other], True)
    assert data.names == ["Bright", "Dark", "Glasses"] and data.people is None
    assert data.targets[0].tolist() == [1, 0, -1] and data.targets[-1].tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"Bright": [0, 1]}, {"labels": ["Brigth"]}, "no column 'Brigth'"),
        ({"Bright": [0, 7]}, {"labels": ["Bright"]}, "holds 7"),
        ({"Bright": [-1, 1]}, {"labels": ["Bright"]}, "hold no 0"),
        ({"name": ["a", "b"]}, {}, "no 0/1 columns"),
        ({"name": ["a", "b"]}, {"multi_label": False}, "no column 'emotion'"),
        ({"Bright": [0, 1]}, {"layout": "celeba178"}, "layout must be one of"),
    ],
)
def test_data_that_do_not_fit_are_named(tmp_path, columns, options, message):
    path = write(tmp_path / "faces.parquet", columns, rows=2)
    with pytest.raises(ValueError, match=message):
        load_classification_data([path], **{"multi_label": True, **options})
    assert isinstance(ClassificationData(np.zeros((1, 2)), ["a", "b"], np.arange(1)).problem_type, str)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, attributes, capsys):
    path = tmp_path / "recipe.yaml"
    for text, message in [
        ("output_dir: x\ntrian: [a]", "unknown fields"),
        ("output_dir: x", "needs output_dir and train"),
        ("output_dir: x\ntrain: [missing.parquet]\nfreeze: backbones", "freeze is"),
        (f"output_dir: {tmp_path}/x\ntrain: [{tmp_path}/missing.parquet]", "missing.parquet does not exist"),
    ]:
        path.write_text(text)
        assert main(["finetune", "attributes", str(path)]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_rows_that_are_kept_for_measuring_are_not_trained_on(recipe, attributes, monkeypatch):
    seen = set()
    original = FineTuningCollator.__call__
    monkeypatch.setattr(
        FineTuningCollator,
        "__call__",
        lambda self, samples: seen.update(s["row"] for s in samples) or original(self, samples),
    )
    finetune("attributes", recipe(attributes, leave_out_every=5, holdout=0.0, steps=8))
    assert seen == {row for row in range(ROWS) if row % 5}


def test_a_new_head_is_one_entry_that_every_command_knows(recipe, expressions, tiny_checkpoint, tmp_path, capsys):
    """A head of one's own: fine-tuned, classified with, measured and put into the card without a line of code."""
    folder = finetune("mood", recipe(expressions, steps=2, holdout=0.34))
    entry = json.loads((folder / "config.json").read_text())["heads"]["mood"]
    assert entry["labels"] == ["happy", "sad"] and entry["problem_type"] == "single_label_classification"
    Image.open(io.BytesIO(picture(2))).save(tmp_path / "face.png")
    assert main(["classify", str(tmp_path / "face.png"), "--aligned", "--head", "mood", "--model", str(folder)]) == 0
    assert "happy" in capsys.readouterr().out
    command = ["evaluate", "head", "--head", "mood", "--data", expressions, "--model", str(folder), "--json"]
    assert main(command) == 0
    report = {"command": "gptface evaluate head --head mood", "report": json.loads(capsys.readouterr().out)}
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "head_mood.json").write_text(json.dumps(report))
    card = model_card(tmp_path / "reports", folder)
    assert "### Further heads" in card and "| `mood` |" in card and '"mood" (2)' in card
    assert main([*command[:3], "age", *command[4:]]) == 2
    assert "its heads are attributes, expression, mood" in capsys.readouterr().err


def test_a_new_head_of_several_columns_has_independent_labels(recipe, attributes):
    model, data, _ = prepare_model("light", recipe(attributes, labels=["Bright", "Dark"]), seed=0)
    assert data.multi_label and model.config.heads["light"]["problem_type"] == "multi_label_classification"
    assert model.head_name == "light" and model.classifiers["light"].output.out_features == 2
    assert model.config.heads["attributes"]["trained"]


def test_votes_are_learned_as_shares_and_the_majority_is_measured(tmp_path):
    """Ten annotators who disagree say more than one label: of the faces called sad every other one is half neutral."""
    votes = [{"happiness": 7, "neutral": 3}, {"sadness": 4, "contempt": 6}, {"sadness": 5, "unknown": 1, "anger": 4}]
    voted = ferplus(tmp_path / "ferplus.parquet", votes, ["happiness", "contempt", "sadness"])
    plain = write(tmp_path / "raf.parquet", {"emotion": ["fear", "happy"]}, rows=2)
    names = sorted({name for name in VOTES.values() if name})
    data = load_classification_data([plain, voted], False, names=names)
    assert data.names == names and data.known.tolist() == [True, True, True, False, True]
    found = [{name: round(float(s), 3) for name, s in zip(names, row, strict=True) if s} for row in data.shares]
    assert found == [{"fear": 1}, {"happy": 1}, {"happy": 0.7, "neutral": 0.3}, {}, {"sad": 0.556, "angry": 0.444}]
    # who asks for a column gets its classes
    assert load_classification_data([voted], False, "expression", names).shares is None
    collate = FineTuningCollator(data, 64)
    training, measuring = (collate([{"row": row, "epoch": epoch} for row in (2, 4)])["labels"] for epoch in (0, -1))
    assert torch.equal(training, torch.from_numpy(data.shares[[2, 4]]))
    assert [names[index] for index in measuring] == ["happy", "sad"]


def test_the_loss_of_shares_is_that_of_torch():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    total, count = ClassificationLoss()(logits, shares)
    assert count.tolist() == [1, 1, 1, 0] and total[3] == 0
    assert total.sum() / 3 == pytest.approx(float(torch.nn.functional.cross_entropy(logits[:3], shares[:3])))
    hard = ClassificationLoss(label_smoothing=0.1, focal_gamma=1.0)
    weights = torch.tensor([1.0, 2.0, 3.0])
    soft, known = (hard(logits[:3], labels, weights)[0] for labels in (torch.eye(3), torch.arange(3)))
    torch.testing.assert_close(soft, known)


def test_the_recipe_of_expression_runs_on_files_like_its_own(tmp_path, monkeypatch, pixel_checkpoint):
    """Its data are found by their names, votes and all, in whatever folder holds train/."""
    (tmp_path / "train").mkdir()
    write(tmp_path / "train" / "rafdb100.parquet", {"emotion": ["happy", "sad"] * 8}, rows=16, size=100)
    votes = [{"happiness": 10}, {"sadness": 8, "neutral": 2}] * 7 + [{"contempt": 9, "neutral": 1}, {"NF": 10}]
    majority = ["happiness", "sadness"] * 7 + ["contempt", "NF"]
    ferplus(tmp_path / "train" / "ferplus48.parquet", votes, majority)
    monkeypatch.chdir(tmp_path)
    path = RECIPES / "finetune_expression.yaml"
    given = FineTuningConfig.from_yaml(path).arguments
    arguments = {**given, "num_train_epochs": 2, "per_device_train_batch_size": 8, "warmup_steps": 0}
    config = FineTuningConfig.from_yaml(path, start_from=str(pixel_checkpoint), arguments=arguments)
    folder = finetune("expression", config)
    head = GPTFaceConfig.from_pretrained(folder).heads["expression"]
    assert head["input"] == "pixels" and len(head["labels"]) == 7 and head["temperature"] > 0
    report = json.loads((tmp_path / "finetuned_expression" / "report.json").read_text())
    assert report["rows"] == {"trained": 27, "held_out": 3, "in_the_data": 32}, "contempt and NF are left out"
    assert len(report["epochs"]) == 2 and all("eval_balanced_accuracy" in epoch for epoch in report["epochs"])
    assert report["kept_checkpoint"].startswith("checkpoint-") and report["held_out"]["images"] == 3


def test_every_recipe_of_fine_tuning_can_be_read():
    for path in RECIPES.glob("finetune_*.yaml"):
        config = FineTuningConfig.from_yaml(path)
        assert config.early_stopping and ClassificationLoss(**config.loss) and FaceAugmentation(**config.augmentation)


def test_training_stops_early_and_keeps_the_best_epoch(recipe, expressions, pixel_checkpoint, monkeypatch):
    """The last epoch of a run that overfits is not what a user wants."""
    scores = iter([0.2, 0.9, 0.5, 0.4, 0.3])
    told = {"eval_balanced_accuracy": None}
    original = FineTuner.evaluate

    def evaluate(self, *args, **kwargs):
        metrics = original(self, *args, **kwargs)
        told["eval_balanced_accuracy"] = metrics["eval_balanced_accuracy"] = next(scores)
        return metrics

    monkeypatch.setattr(FineTuner, "evaluate", evaluate)
    arguments = {"num_train_epochs": 5, "save_strategy": "epoch", "per_device_train_batch_size": 8}
    options = {"start_from": str(pixel_checkpoint), "early_stopping": 2, "arguments": arguments, "steps": -1}
    folder = finetune("expression", recipe(expressions, **options))
    report = json.loads((folder.parent / "report.json").read_text())
    assert len(report["epochs"]) == 4 and report["kept_checkpoint"] == "checkpoint-6", "three steps an epoch"
    best = load_file(folder.parent / "checkpoint-6" / "model.safetensors")
    kept = load_file(folder / "model.safetensors")
    name = "classifiers.expression.output.weight"
    assert torch.equal(kept[name], best[name].half())
    with pytest.raises(ValueError, match="early_stopping"):
        recipe(expressions, early_stopping=2, holdout=0.0)


def test_the_report_has_the_answers_of_the_pipeline(recipe, attributes):
    folder = finetune("attributes", recipe(attributes, holdout=0.34))
    report = json.loads((folder.parent / "report.json").read_text())
    assert report["labels"] == ["Bright", "Dark"] and report["rows"]["held_out"] == 8
    data = load_classification_data([attributes], True)
    _, held_out = data.split(np.arange(ROWS), 0.34, seed=42)
    classify = pipeline("face-attribute-classification", model=str(folder))
    answers = classify([data.crop(row, 64) for row in held_out], aligned=True, threshold="auto")
    says = np.array([[name in {entry["label"] for entry in answer} for name in data.names] for answer in answers])
    assert report["held_out"]["accuracy"] == pytest.approx((says == data.targets[held_out]).mean())


def test_a_regression_is_not_trained_as_classes(recipe, expressions, pixel_checkpoint, tmp_path):
    model = GPTFaceForFacialExpression.from_pretrained(pixel_checkpoint)
    config = model.config
    config.heads = {**config.heads, "age": {"labels": ["age"], "problem_type": "regression", "input": "pixels"}}
    shutil.copytree(pixel_checkpoint, tmp_path / "age")
    GPTFaceForPreTraining(config).save_pretrained(tmp_path / "age")
    with pytest.raises(ValueError, match="'age' is a regression"):
        prepare_model("age", recipe(expressions, start_from=str(tmp_path / "age")), seed=0)


def test_lora_of_peft_trains_merges_and_opens_in_the_pipeline(pixel_checkpoint, tmp_path):
    """What the README shows: low-rank changes of the backbone, which leave no trace but the merged weights."""
    peft = pytest.importorskip("peft")
    model = GPTFaceForFacialExpression.from_pretrained(pixel_checkpoint)
    model.config.heads = {**model.config.heads, "expression": {**model.config.heads["expression"], "input": "pixels"}}
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "pixel_values": torch.rand(6, 3, 64, 64, generator=generator) * 2 - 1,
        "labels": torch.arange(6) % 2,
    }
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    lora = peft.LoraConfig(
        r=4, target_modules=LORA_LAYERS, modules_to_save=["classifiers.expression", "gptface.pixel_reader"]
    )
    tuned = peft.get_peft_model(model, lora)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = tuned(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    tuned.eval()
    with torch.no_grad():
        expected = tuned(pixel_values=inputs["pixel_values"]).logits
    merged = tuned.merge_and_unload()
    merged.save_pretrained(tmp_path)
    GPTFaceProcessor.from_pretrained(pixel_checkpoint).save_pretrained(tmp_path)
    again = GPTFaceForFacialExpression.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(pixel_values=inputs["pixel_values"]).logits, expected, atol=1e-4, rtol=1e-4)
    changed = {name for name, value in again.named_parameters() if not torch.equal(value, before[name])}
    assert any("attention.query" in name and "layers." in name for name in changed)
    allowed = ("gptface.layers.", "gptface.pixel_reader.", "classifiers.expression.")
    assert all(name.startswith(allowed) for name in changed)
    assert len(pipeline("facial-expression", model=str(tmp_path))(Image.new("RGB", (64, 64)), aligned=True)) == 7
