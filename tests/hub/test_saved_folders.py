"""What is saved, by whatever means, opens again as what it was, also where the package is not installed."""

import json
import re

import pytest
import torch
from processes import run_python
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

import gptface
from gptface.cli import main
from gptface.modeling_gptface.saved_code import SavesCode

LOST = "A fine-tune for two classes answers with the old labels once it is loaded again"
CLOSED = "Saved folders need the package and name folders of a machine; the card's task is gone"

#: A process without the package opens each folder and says what it reads there.
OPEN = """
from transformers import AutoModelForImageClassification, AutoProcessor
trust = {"trust_remote_code": True}
labels = {}
for folder in FOLDERS:
    model = AutoModelForImageClassification.from_pretrained(folder, **trust)
    processor = AutoProcessor.from_pretrained(folder, **trust)
    labels[folder] = [type(processor).__name__, *model.config.id2label.values()]
report(labels=labels, loaded="gptface" in sys.modules)
"""


def binary(checkpoint, **options):
    return AutoModelForImageClassification.from_pretrained(
        checkpoint, num_labels=2, ignore_mismatched_sizes=True, **options
    )


@pytest.fixture
def mean(tiny_checkpoint, tmp_path):
    """Folder of a model that was fine-tuned on two classes, and its logits of one picture."""
    model = binary(tiny_checkpoint)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model(pixel_values=pixels, labels=torch.tensor([0, 1])).loss.backward()
    model.train()(pixel_values=pixels, labels=torch.tensor([0, 1]))
    model.eval().save_pretrained(tmp_path / "two")
    gptface.GPTFaceProcessor.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "two")
    with torch.no_grad():
        return tmp_path / "two", pixels, model(pixel_values=pixels).logits


@pytest.mark.report(LOST)
def test_two_classes_come_back(mean):
    """The folder opens with the head that was trained, LABEL_0 and LABEL_1, and gives the same logits."""
    folder, pixels, logits = mean
    for options in ({}, {"num_labels": 2}):
        model = AutoModelForImageClassification.from_pretrained(folder, **options).eval()
        assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
        with torch.no_grad():
            assert torch.equal(model(pixel_values=pixels).logits, logits)
    # somebody who asks for another head gets that
    assert gptface.GPTFaceForFacialExpression.from_pretrained(folder).config.num_labels == 7
    other = AutoModelForImageClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    assert other.config.num_labels == 3 and not other.config.heads["labels"]["trained"]


@pytest.mark.report(LOST)
def test_pipelines_answer_with_the_labels_of_the_folder_or_refuse(mean, face_picture, capsys, tmp_path):
    """`face-classification` answers with the new labels; a task of old labels refuses and says how to ask for them."""
    folder, *_ = mean
    scores = pipeline("face-classification", model=str(folder))(face_picture, aligned=True)
    assert {each["label"] for each in scores} == {"LABEL_0", "LABEL_1"}
    for task in ("face-attribute-classification", "facial-expression"):
        with pytest.raises(ValueError, match=r"head 'labels' \(LABEL_0, LABEL_1\).*face-classification"):
            pipeline(task, model=str(folder))
    asked = pipeline("face-attribute-classification", model=str(folder), head="attributes")
    assert len(asked(face_picture, aligned=True)) == 5
    face_picture.save(photo := tmp_path / "face.png")
    assert main(["classify", str(photo), "--aligned", "--json", "--model", str(folder)]) == 0
    assert {each["label"] for each in json.loads(capsys.readouterr().out)["scores"]} == {"LABEL_0", "LABEL_1"}


@pytest.mark.report(LOST)
def test_a_model_in_memory_is_no_other(tiny_checkpoint, tiny_processor):
    """A model that was made for two classes is refused by the task of the attributes, too, before it is ever saved."""
    with pytest.raises(ValueError, match="'labels'"):
        pipeline("face-attribute-classification", model=binary(tiny_checkpoint), processor=tiny_processor)


def test_a_folder_of_one_task_serves_the_other(tiny_checkpoint, tiny_processor, tmp_path):
    gptface.GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    assert AutoModelForImageClassification.from_pretrained(tmp_path).config.num_labels == 7
    assert pipeline("face-attribute-classification", model=str(tmp_path)).head_name == "attributes"


@pytest.mark.report(CLOSED)
def test_whatever_saves_saves_the_code(tiny_checkpoint, tiny_processor, tmp_path):
    """save_pretrained, pipe.save_pretrained and Trainer save what a process without the package opens, and no path."""
    model = binary(tiny_checkpoint)
    model.save_pretrained(tmp_path / "parts")
    tiny_processor.save_pretrained(tmp_path / "parts")
    pipeline("facial-expression", model=str(tiny_checkpoint)).save_pretrained(tmp_path / "pipe", max_shard_size="1MB")
    faces = [{"pixel_values": torch.zeros(3, 64, 64), "labels": index % 2} for index in range(2)]
    arguments = TrainingArguments(
        str(tmp_path / "trainer"), max_steps=1, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(model, arguments, train_dataset=faces, processing_class=tiny_processor).train()
    folders = [tmp_path / name for name in ("parts", "pipe", "trainer/checkpoint-1")]
    for folder in folders:
        for file in folder.glob("*.json"):
            found = re.findall(r'"(/[^"]+|[^"]*' + re.escape(str(tiny_checkpoint)) + '[^"]*)"', file.read_text())
            assert not found or file.name == "tokenizer.json", file
    code = OPEN.replace("FOLDERS", repr([str(folder) for folder in folders]))
    opened = run_python(code, tmp_path, package=False)
    expression = gptface.GPTFaceConfig.from_pretrained(tiny_checkpoint).heads["expression"]["labels"]
    two = ["GPTFaceProcessor", "LABEL_0", "LABEL_1"]
    assert list(opened["labels"].values()) == [two, ["GPTFaceProcessor", *expression], two]
    assert not opened["loaded"]


def test_parts_that_nothing_refers_to_stay_alone(tiny_model, tmp_path):
    """The folder of an image tokenizer gets no code: it is a part, which the model's folder has in it."""
    tiny_model().image_tokenizer.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))


def test_what_an_upload_takes_is_complete(tmp_path):
    """transformers uploads before `save_pretrained(push_to_hub=True)` returns."""
    seen = []

    class Uploading:
        def _upload_modified_files(self, working_dir):
            seen.append(sorted(file.name for file in working_dir.iterdir()))

    (tmp_path / "config.json").write_text('{"model_type": "gptface", "_name_or_path": "/home/somebody"}')
    type("Saved", (SavesCode, Uploading), {})()._upload_modified_files(tmp_path)
    assert "gptface_hub.py" in seen[0] and "somebody" not in (tmp_path / "config.json").read_text()
