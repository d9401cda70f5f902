"""The text tokenizer follows BERT uncased, so that vocabularies and embeddings of that family fit."""

import pytest
from transformers import AutoTokenizer

from gptface import GPTFaceTokenizer


@pytest.fixture
def vocabulary():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "smil", "##ing", "woman", ",", "café", "cafe"]
    return {word: index for index, word in enumerate(words)}


def test_cls_caption_sep(tiny_tokenizer):
    tokens = tiny_tokenizer.convert_ids_to_tokens(tiny_tokenizer("a sad face")["input_ids"])
    assert tokens == ["[CLS]", "a", "sad", "face", "[SEP]"]
    assert tiny_tokenizer("")["input_ids"] == [tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id]


def test_special_tokens_have_the_ids_that_the_configuration_expects(tiny_tokenizer):
    ids = [getattr(tiny_tokenizer, f"{name}_token_id") for name in ("pad", "unk", "cls", "sep", "mask")]
    assert ids == [0, 1, 2, 3, 4]


def test_case_accents_and_punctuation(vocabulary):
    tokenizer = GPTFaceTokenizer.from_vocabulary(vocabulary)
    assert tokenizer.tokenize("A SMILING woman, café") == ["a", "smil", "##ing", "woman", ",", "cafe"]
    assert tokenizer.tokenize("zebra") == ["[UNK]"]


def test_a_mask_in_the_text_is_the_mask_token(tiny_tokenizer):
    """A user asks for a word to be filled in: "a [MASK] woman"."""
    assert tiny_tokenizer.mask_token_id in tiny_tokenizer("a [MASK] woman")["input_ids"]


def test_padding_and_truncation(tiny_tokenizer):
    batch = tiny_tokenizer(["a face", "a smiling woman " * 9], padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 12, [1] * 16]
    assert batch["input_ids"][1, -1] == tiny_tokenizer.sep_token_id, "a cut caption must still end in [SEP]"
    assert set(batch) == {"input_ids", "attention_mask"}


def test_decoding_joins_the_pieces(vocabulary):
    tokenizer = GPTFaceTokenizer.from_vocabulary(vocabulary)
    assert tokenizer.decode(tokenizer("a smiling woman")["input_ids"], skip_special_tokens=True) == "a smiling woman"


def test_any_printable_text_can_be_spelled(tiny_tokenizer):
    text = "".join(chr(code) for code in range(33, 127))
    assert tiny_tokenizer.unk_token_id not in tiny_tokenizer(" ".join(text))["input_ids"]


def test_saved_it_loads_through_auto_tokenizer(tiny_tokenizer, tiny_checkpoint):
    for loaded in (AutoTokenizer.from_pretrained(tiny_checkpoint), GPTFaceTokenizer.from_pretrained(tiny_checkpoint)):
        assert type(loaded) is GPTFaceTokenizer and loaded.model_max_length == 16
        for text in ("A Smiling woman!", "[MASK] face", ""):
            assert loaded(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
        assert loaded.mask_token_id == 4


def test_a_vocabulary_without_special_tokens_is_refused(vocabulary):
    del vocabulary["[MASK]"]
    with pytest.raises(ValueError, match=r"\[MASK\]"):
        GPTFaceTokenizer.from_vocabulary(vocabulary)


def test_a_trained_vocabulary_is_as_small_as_asked_and_repeatable():
    """Two ranks that train it from the same captions must number its entries alike."""
    texts = ["a smiling woman with brown hair and brown eyes", "an old man, unsmiling", "Émile grins"] * 3
    first, second = (GPTFaceTokenizer.train(texts, vocab_size=150) for _ in range(2))
    assert len(first) <= 150 and first.get_vocab() == second.get_vocab()
    assert sorted(first.get_vocab().values()) == list(range(len(first)))
    assert first.tokenize("brown emile") == second.tokenize("brown emile")


def test_pieces_inside_words_are_not_special(tiny_tokenizer):
    """A special token would be cut out of any word and left out of decoded captions."""
    assert sorted(tiny_tokenizer.all_special_tokens) == ["[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"]
    assert len(tiny_tokenizer.added_tokens_decoder) == 5
    ids = tiny_tokenizer("zgl")["input_ids"]
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == "zgl"
