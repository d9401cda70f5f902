"""The models that the experiment on text encoders compares: one that lost the encoder's words would show that they do not help."""

import runpy
import string
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from gptface import GPTFaceForPreTraining, GPTFaceTokenizer

bench = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "text_start.py"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNS = [prefix + sign for prefix in ("", "##") for sign in string.ascii_lowercase + string.digits]
WORDS = [first + second for first in "bcdfghjklmnp" for second in string.ascii_lowercase]


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    vocabulary = [*SPECIAL, *SIGNS, *WORDS]
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=264, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    bert = BertModel(config)
    bert.save_pretrained(folder / "bert")
    (folder / "bert" / "vocab.txt").write_text("".join(f"{entry}\n" for entry in vocabulary))
    source = bench["converted"](folder / "bert", folder / "converted")
    for kind in ("encoder", "shape", "vectors"):
        bench["make_start"](kind, source, folder / kind)
    tokenizer = GPTFaceTokenizer.from_pretrained(folder / "vectors")
    kept = torch.tensor([vocabulary.index(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])
    models = {kind: GPTFaceForPreTraining.from_pretrained(folder / kind) for kind in ("encoder", "shape", "vectors")}
    return models, bert.embeddings.word_embeddings.weight.detach()[kept]


def test_only_the_encoder_has_the_encoders_weights(starts):
    models, words = starts
    tables = {kind: model.get_input_embeddings().weight for kind, model in models.items()}
    torch.testing.assert_close(tables["encoder"].data, words)
    assert tables["shape"].shape == words.shape and not torch.allclose(tables["shape"], words)
    states = [models[kind].state_dict() for kind in ("encoder", "shape")]
    assert states[0].keys() == states[1].keys()
    assert models["encoder"].config.to_diff_dict() == models["shape"].config.to_diff_dict()
    # they read the codes of the same image tokenizer
    assert len({model.image_tokenizer.fingerprint() for model in models.values()}) == 1


def test_projected_words_lie_to_each_other_as_the_encoders_do(starts):
    models, words = starts
    table = models["vectors"].get_input_embeddings().weight.detach()
    assert table.shape[1] == models["vectors"].config.hidden_size == 256
    grams = [(rows - rows.mean(0)) @ (rows - rows.mean(0)).T for rows in (table, words)]
    correlation = torch.corrcoef(torch.stack([gram.flatten() for gram in grams]))[0, 1]
    assert correlation > 0.99


def test_prompts_have_a_word_that_no_caption_has(monkeypatch):
    bench["check_unseen"]()
    monkeypatch.setitem(bench["UNSEEN"], ("Smiling", 1), ("a smile",))
    with pytest.raises(ValueError, match="'a smile'"):
        bench["check_unseen"]()
