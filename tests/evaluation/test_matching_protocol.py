"""A protocol that drifts, or whose captions give themselves away, makes figures of two checkpoints incomparable."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gptface import GPTFaceForPreTraining, GPTFaceTokenizer
from gptface.cli import main
from gptface.data.captions import PHRASES, contradicts
from gptface.data.encode import encode_dataset
from gptface.evaluation.faces import load_faces
from gptface.evaluation.matching import MatchingEvaluation
from gptface.evaluation.protocol import frequent_attributes, protocol_captions, words_only_auc

NAMES = ["Arched_Eyebrows", "Eyeglasses", "Male", "Smiling", "Young", "Attractive", "Bald"]


@pytest.fixture(scope="module")
def labels():
    generator = np.random.default_rng(0)
    rows = [{name: int(generator.integers(2)) for name in NAMES} for _ in range(64)]
    return [{**row, "Bald": int(index < 19)} for index, row in enumerate(rows)]


@pytest.fixture(scope="module")
def parquet(labels, tmp_path_factory):
    """Noisy crops of 64 px with their labels."""
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    generator = np.random.default_rng(1)
    rows = []
    for row in labels:
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
        rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "identity": 1, **row})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def parse(caption):
    """A caption of the protocol → mentions."""
    phrases = {known.canonical: (name, value) for name, values in PHRASES.items() for value, known in values.items()}
    return dict(phrases[part] for part in caption.split(", "))


def test_captions_are_what_the_protocol_says(labels):
    assert frequent_attributes(labels) == ["Arched_Eyebrows", "Eyeglasses", "Male", "Smiling", "Young"]
    for face, known in zip(protocol_captions(labels), labels, strict=True):
        true, false, flipped = parse(face.true), parse(face.false), parse(face.counterfactual)
        assert len(true) == len(false) == len(flipped) == 3
        assert not contradicts(true, known) and contradicts(false, known) and contradicts(flipped, known)
        assert sum(true.get(name) != value for name, value in flipped.items()) == 1


def test_the_protocol_does_not_drift(labels):
    first = protocol_captions(labels)[0]
    assert first.true == "old, eyeglasses, man"
    assert first.false == "young, man, no eyeglasses"
    assert first.counterfactual == "young, eyeglasses, man"
    assert protocol_captions(labels, seed=1)[0] != first


def test_words_alone_tell_nothing_of_strangers_captions_but_leaks_show(labels):
    captions = protocol_captions(labels)
    true, false = [face.true for face in captions], [face.false for face in captions]
    assert sorted(true) == sorted(false)
    assert words_only_auc(true, false) == 0.5
    assert words_only_auc(true, [f"{caption}, not" for caption in true]) > 0.95


def test_too_few_labels_are_refused(labels):
    with pytest.raises(ValueError, match="3 attributes with at least 20"):
        protocol_captions(labels[:20])
    with pytest.raises(ValueError, match="none"):
        protocol_captions([{"emotion:happy": 1}] * 50)


@pytest.fixture(scope="module")
def judge(tiny_checkpoint, parquet):
    model = GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).eval()
    faces = load_faces(parquet, model.image_tokenizer, "aligned")
    return MatchingEvaluation(model, GPTFaceTokenizer.from_pretrained(tiny_checkpoint), faces, batch_size=50)


def test_figures_do_not_depend_on_the_batch_size(judge):
    other = MatchingEvaluation(judge.model, judge.tokenizer, judge.faces, batch_size=7)
    for first, second in ((judge.matching(5), other.matching(5)), (judge.masked(), other.masked())):
        first.pop("auc_per_attribute", None), second.pop("auc_per_attribute", None)
        assert first == pytest.approx(second, abs=1e-3)


def test_a_model_that_knows_the_labels_has_an_auc_of_one(judge, monkeypatch):
    def knowing(rows, texts):
        return np.array(
            [-contradicts(parse(text), judge.faces.labels[row]) for row, text in zip(rows, texts, strict=True)], float
        )

    monkeypatch.setattr(judge, "log_odds", knowing)
    report = judge.matching()
    assert report["auc"] == report["auc_counterfactual"] == report["auc_by_attribute"] == 1
    assert set(report["auc_per_attribute"]) == set(frequent_attributes(judge.faces.labels))


def test_losses_are_those_of_the_masked_positions(judge, monkeypatch):
    """A model without an opinion has the loss of a uniform guess."""
    model = judge.model

    class Output:
        def __init__(self, labels, size):
            self.image_logits = self.text_logits = torch.zeros(*labels.shape, size)

    seen = []

    def forward(image_labels=None, text_labels=None, image_mask=None, input_ids=None, **inputs):
        labels = image_labels if text_labels is None else text_labels
        seen.append((labels != -100).float().mean().item())
        if image_mask is not None:
            assert torch.equal(image_mask, labels != -100)
        else:
            assert (input_ids[labels != -100] == model.config.mask_token_id).all()
        return Output(labels, model.config.num_codes if text_labels is None else model.config.vocab_size)

    monkeypatch.setattr(judge, "model", type("Model", (), {"config": model.config, "device": model.device})())
    monkeypatch.setattr(type(judge.model), "__call__", staticmethod(forward), raising=False)
    report = {**judge.masked(), **judge.mouth()}
    uniform = np.log(model.config.num_codes)
    assert all(report[f"code_loss_{share}"] == pytest.approx(uniform, rel=1e-5) for share in (15, 50, 100))
    assert report["mouth_loss"] == pytest.approx(uniform, rel=1e-5)
    assert report["word_loss_100"] == pytest.approx(np.log(model.config.vocab_size), rel=1e-5)
    assert seen[0] == pytest.approx(10 / 64) and seen[2 * 2 * 2] == 1  # two batches, cells and words, 15 and 50 %


def test_counting_beats_guessing_where_cells_repeat(judge):
    assert judge.unigram(judge.faces.codes)["unigram_loss"] < np.log(judge.model.config.num_codes)


@pytest.mark.parametrize("form", ["bytes", "tar", "folder of shards"])
def test_faces_are_the_same_in_every_form(form, judge, parquet, tmp_path):
    """Plain bytes, which any other program writes, ended in a TypeError."""
    table = pq.read_table(parquet)
    pictures = [row["bytes"] for row in table["image"].to_pylist()]
    path = tmp_path / ("faces.tar" if form == "tar" else "faces.parquet")
    if form == "tar":
        with tarfile.open(path, "w") as archive:
            for row, (picture, known) in enumerate(zip(pictures, judge.faces.labels, strict=True)):
                for name, data in ((f"{row:03d}.png", picture), (f"{row:03d}.json", json.dumps(known).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    else:
        pq.write_table(table.set_column(0, "image", pa.array(pictures)).replace_schema_metadata(None), path)
    faces = load_faces(tmp_path if form == "folder of shards" else path, judge.model.image_tokenizer, "aligned")
    assert np.array_equal(faces.codes, judge.faces.codes) and faces.labels == judge.faces.labels


def test_command_reads_pictures_and_codes_alike(tiny_checkpoint, parquet, tmp_path, capsys):
    tokenizer = GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).image_tokenizer
    encode_dataset(parquet, tmp_path / "codes", tokenizer, "aligned")
    options = ["--model", str(tiny_checkpoint), "--layout", "aligned", "--per-attribute", "5"]
    reports = []
    for data in (parquet, tmp_path / "codes"):
        command = ["evaluate", "matching", "--data", str(data), "--unigram", str(tmp_path / "codes"), "--json"]
        assert main([*command, *options]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1] and reports[0]["images"] == 64
    assert {
        "auc",
        "auc_counterfactual",
        "auc_by_attribute",
        "words_only_auc",
        "code_loss_15",
        "word_accuracy_100",
    } < set(reports[0])
    assert main(["evaluate", "matching", "--data", str(tmp_path / "none.parquet"), *options]) == 2
    assert "none.parquet" in capsys.readouterr().err
