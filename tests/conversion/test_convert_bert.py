"""A BERT-shaped encoder must give the same states on text after conversion, with all of its vocabulary or a part."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig, GPTFaceProcessor
from gptface.conversion.bert import convert_bert
from gptface.conversion.report import ConversionError
from gptface.processing.tokenization_gptface import GPTFaceTokenizer

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNS = [
    prefix + sign for prefix in ("", "##") for sign in string.ascii_lowercase + string.digits + string.punctuation
]
ENTRIES = [*SPECIAL, "smil", "##ing", "woman", *SIGNS, "##woman", "hair", "éa"]
CONFIG = {
    "vocab_size": len(ENTRIES) + 2,  # padded, as some are for speed
    "hidden_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 37,
    "max_position_embeddings": 20,
}
TEXTS = ["a smiling woman", "hair 5", "x"]


def write_encoder(folder: Path, model_class: type = BertModel, **config) -> Any:
    torch.manual_seed(0)
    model = model_class(BertConfig(**(CONFIG | config))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in ENTRIES), encoding="utf-8")
    return model


@pytest.fixture
def tokenizer_folder(tmp_path) -> Path:
    config = GPTFaceImageTokenizerConfig(image_size=32, hidden_channels=8, latent_channels=4)
    GPTFaceImageTokenizer(config).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@torch.no_grad()
def assert_same_states(folder: Path, bert: Any) -> Any:
    """The converted model with its own tokenizer, against BERT with the vocabulary that it came with."""
    model = GPTFaceForPreTraining.from_pretrained(folder).eval()
    inputs = GPTFaceProcessor.from_pretrained(folder)(text=TEXTS)
    source = GPTFaceTokenizer.from_vocabulary({entry: index for index, entry in enumerate(ENTRIES)})
    expected = bert(**source(TEXTS, padding=True, return_tensors="pt"))
    mask = inputs["attention_mask"].bool()
    states = model.gptface(**inputs).last_hidden_state
    torch.testing.assert_close(states[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0)
    return model


def test_text_states_are_the_encoders(tmp_path, tokenizer_folder):
    bert = write_encoder(tmp_path / "bert")
    report = convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", max_text_length=12)
    model = assert_same_states(tmp_path / "model", bert)
    source = GPTFaceImageTokenizer.from_pretrained(tokenizer_folder)
    assert model.image_tokenizer.fingerprint() == source.fingerprint()
    assert (model.config.max_text_length, model.config.match_trained) == (12, False)
    assert model.config.mask_token_id == ENTRIES.index("[MASK]")
    torch.testing.assert_close(model.match_head.dense.weight, bert.pooler.dense.weight)
    initialised = {tensor.name for tensor, _ in report.initialised}
    assert {
        "gptface.embeddings.code_embeddings.weight",
        "lm_head.dense.weight",
        "match_head.output.bias",
    } <= initialised


def test_masked_language_head_comes_along(tmp_path, tokenizer_folder):
    bert = write_encoder(tmp_path / "bert", BertForMaskedLM)
    convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", max_text_length=12)
    model = GPTFaceForPreTraining.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([[3, 6, 7, 5, 4]])
    with torch.no_grad():
        states = model.gptface(ids).last_hidden_state
        torch.testing.assert_close(
            model.lm_head.text(states), bert(ids).logits[..., : len(ENTRIES)], atol=1e-5, rtol=0
        )


def test_pruned_vocabulary_splits_its_words_as_before(tmp_path, tokenizer_folder):
    bert = write_encoder(tmp_path / "bert")
    convert_bert(
        tmp_path / "bert", tokenizer_folder, tmp_path / "model", ["Smiling woman", "hair"], max_text_length=12
    )
    model = assert_same_states(tmp_path / "model", bert)
    vocabulary = GPTFaceTokenizer.from_pretrained(tmp_path / "model").get_vocab()
    assert set(ENTRIES) - set(vocabulary) == {"[unused0]", "##woman", "éa"}
    assert sorted(vocabulary.values()) == list(range(model.config.vocab_size))


def test_words_that_cannot_be_written_are_listed(tmp_path, tokenizer_folder):
    write_encoder(tmp_path / "bert")
    with pytest.raises(ConversionError, match='"ß"'):
        convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", ["hair", "ß"], max_text_length=12)
    assert not (tmp_path / "model").exists()


def test_task_heads_are_left_out_and_old_names_understood(tmp_path, tokenizer_folder):
    bert = write_encoder(tmp_path / "bert", BertForSequenceClassification)
    state = {}
    for name, tensor in bert.state_dict().items():
        if "LayerNorm" in name:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        state[name] = tensor
    (tmp_path / "bert" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "bert" / "pytorch_model.bin")
    report = convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", max_text_length=12)
    assert_same_states(tmp_path / "model", bert.bert)
    assert {"classifier.weight", "classifier.bias"} <= {tensor.name for tensor, _ in report.skipped}


def test_another_vocabulary_kind_is_refused(tmp_path, tokenizer_folder):
    write_encoder(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    with pytest.raises(ConversionError, match="cased WordPiece vocabulary"):
        convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", max_text_length=12)
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}}}))
    with pytest.raises(ConversionError, match="BPE vocabulary"):
        convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model", max_text_length=12)


def test_another_kind_of_encoder_is_refused(tmp_path, tokenizer_folder):
    write_encoder(tmp_path / "bert")
    with pytest.raises(ConversionError, match="max_text_length 64 is not in 3…20"):
        convert_bert(tmp_path / "bert", tokenizer_folder, tmp_path / "model")
    with pytest.raises(ConversionError, match="lacks num_hidden_layers"):
        convert_bert(tokenizer_folder, tokenizer_folder, tmp_path / "model")
    DistilBertModel(DistilBertConfig(vocab_size=9, dim=6, hidden_dim=7, n_heads=2)).save_pretrained(
        tmp_path / "distil"
    )
    with pytest.raises(ConversionError, match="lacks intermediate_size"):
        convert_bert(tmp_path / "distil", tokenizer_folder, tmp_path / "model")
    with pytest.raises(ConversionError, match="no GPTFace model"):
        convert_bert(tmp_path / "bert", tmp_path / "bert", tmp_path / "model", max_text_length=12)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert_bert(tmp_path / "nowhere", tokenizer_folder, tmp_path / "model")
