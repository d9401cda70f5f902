"""The text tokenizer: WordPiece with the conventions of BERT uncased."""

import json
import os
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gptface.modeling_gptface.saved_code import SavesCode

# In the order of their ids in a vocabulary trained here; BERT's own vocabulary keeps its own ids.
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
#: Kinds of the parts that a tokenizer.json may have. Others can be programs: replacements that double a text thirty
#: times over, and regular expressions, do not end.
PARTS = {
    "model": ("WordPiece",),
    "normalizer": ("BertNormalizer",),
    "pre_tokenizer": ("BertPreTokenizer",),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
    "decoder": ("WordPiece",),
}
#: WordPiece takes the square of a word's length.
LONGEST_WORD = 100


def check_tokenizer_file(path: str | os.PathLike) -> None:
    """
    Raises `ValueError` where a tokenizer.json is not of the kind that this project writes; says which part is not.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        kinds = {name: None if content[name] is None else content[name]["type"] for name in PARTS}
        longest = content["model"]["max_input_chars_per_word"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no tokenizer ({error!r:.200}): fetch it again") from error
    for name, kind in kinds.items():
        if kind not in (*PARTS[name], None):
            raise ValueError(
                f"{os.fspath(path)} has a {name} of the kind {kind!r}: it must be {' or '.join(PARTS[name])}"
            )
    if not isinstance(longest, int) or longest > LONGEST_WORD:
        raise ValueError(f"{os.fspath(path)} reads words of {longest} characters: {LONGEST_WORD} is the most")


class GPTFaceTokenizer(SavesCode, PreTrainedTokenizerFast):
    """
    Lower-cased WordPiece; `[CLS] caption [SEP]`. It is whatever its tokenizer.json says: make one with
    [`GPTFaceTokenizer.train`] or [`GPTFaceTokenizer.from_vocabulary`].

    Example:

    ```python
    >>> tokenizer = GPTFaceTokenizer.train(["a smiling woman", "an old man"], vocab_size=200, max_length=16)
    >>> tokenizer.decode(tokenizer("A smiling man").input_ids)
    '[CLS] a smiling man [SEP]'

    ```
    """

    model_input_names = ["input_ids", "attention_mask"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        As in transformers.

        Raises:
            ValueError: a tokenizer.json that is damaged, or not of the kind that this project writes.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except (json.JSONDecodeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"the tokenizer in {pretrained_model_name_or_path} is damaged ({error!r:.200}): fetch it again"
            ) from error

    @classmethod
    def convert_to_native_format(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # what `from_pretrained` reads the files by
        if kwargs.get("tokenizer_file") is None:
            raise ValueError("there is no tokenizer.json, which a GPTFaceTokenizer is made of")
        check_tokenizer_file(kwargs["tokenizer_file"])
        return super().convert_to_native_format(*args, **kwargs)

    @classmethod
    def from_vocabulary(cls, vocabulary: dict[str, int], max_length: int = 64) -> "GPTFaceTokenizer":
        """
        A tokenizer over a WordPiece vocabulary such as BERT's.

        Raises:
            ValueError: where one of the special tokens is missing.
        """
        missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
        if missing:
            raise ValueError(f"the vocabulary lacks the special tokens {missing}")
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
        return cls._with_conventions(tokenizer, max_length)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, max_length: int = 64) -> "GPTFaceTokenizer":
        """
        Trains a WordPiece vocabulary of at most `vocab_size` entries; every printable ASCII character is in it. The
        same texts give the same vocabulary, on each rank too.
        """
        texts = list(texts)
        tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        # The trainer would number the pieces inside words in the order of a hash map, and break ties by these numbers.
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL_TOKENS.values(), *_inner_pieces(tokenizer, texts)],
            initial_alphabet=[chr(code) for code in range(33, 127)],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        # Anew from the vocabulary, so that the pieces do not stay special.
        return cls.from_vocabulary(tokenizer.get_vocab(), max_length)

    @classmethod
    def _with_conventions(cls, tokenizer: Tokenizer, max_length: int) -> "GPTFaceTokenizer":
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        cls_token, sep_token = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls_token} $A {sep_token}",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls_token, sep_token)],
        )
        return cls(tokenizer_object=tokenizer, model_max_length=max_length, **SPECIAL_TOKENS)


def _inner_pieces(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """`##x` for each character x that stands inside a word of the texts, sorted."""
    words = {
        word
        for text in set(texts)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    return sorted({f"##{character}" for word in words for character in word[1:]})
