"""Texts from web pages → captions: what was written for machines goes, what was said stays, in any language."""

import functools
import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# Text beyond this many characters for each character that may stay is not looked at.
_RAW_FACTOR = 16

# Every pattern is linear in the length of the text: no repetition that can match the same characters in two ways.
_URL = re.compile(r"\b(?:https?|ftp)://\S+|\bwww\.\S+", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DOMAIN = re.compile(
    r"(?<![\w.@-])(?:[\w-]{1,63}\.){1,4}(?:com|org|net|info|biz|edu|gov|io|co|uk|de|fr|it|es|nl|ru|jp|cn|br|eu)\b(?:/\S*)?",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(r"(?<!\S)[^\s/]{1,200}\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic)(?!\w)", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|td|tr|h[1-6]|hr|img)\b", re.IGNORECASE)  # words on both sides stay apart
_AFTER_LINK = ")]}>\"',.;:!?"
_MENTION = re.compile(r"(?<!\w)@\w+")
_HASHTAG_RUN = re.compile(r"(?<![\w&])#\w+(?:[\s,]{1,8}#\w+)+")
_HASHTAG = re.compile(r"(?<![\w&])#(?=[^\W\d_])")
_EMPTY_BRACKETS = re.compile(r"\(\s{0,8}\)|\[\s{0,8}\]|\{\s{0,8}\}")
_SPACE_BEFORE = re.compile(r"\s(?=[,.;:!?](?:\s|$))")
_REPEATED = re.compile(r"([!?.,;:_=*~|-])\1{3,}")

# Joiners are invisible but part of the spelling in Persian, in the languages of India and in emoji.
_JOINERS = "\u200c\u200d"
# Beginnings and ends that are left over when a link or a tag list between them has gone.
_LEFT_OVER = " \t,;:|/\\<>=*~_•·–—-"
_SENTENCE_ENDS = (". ", "! ", "? ", "。", "！", "？", "।", "؟ ")


class CaptionError(ValueError):
    """A text that is no caption; the message is the reason, one of few."""


@dataclass(frozen=True)
class CaptionRules:
    """
    Args:
        min_letters: fewer letters, in any script, are no caption.
        max_characters: longer captions are cut at the end of a sentence or of a word.
    """

    min_letters: int = 2
    max_characters: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.min_letters <= self.max_characters:
            raise ValueError(
                f"a caption needs at least 1 letter and no more than it may have characters, got {self.min_letters} "
                f"letters and {self.max_characters} characters"
            )


def clean_caption(text: str, rules: CaptionRules | None = None) -> str:
    """
    Takes out HTML tags and entities, scripts, URLs, domains, e-mail addresses, picture file names, @names, runs of
    hashtags (of a single one the word stays), control characters and surplus space; composes accents (NFC); cuts what
    is too long.

    Raises:
        CaptionError: less than `rules.min_letters` letters are left.
    """
    rules = rules or CaptionRules()
    text = text[: rules.max_characters * _RAW_FACTOR].encode(errors="ignore").decode()  # lone surrogates go
    text = unicodedata.normalize("NFC", "".join(map(_printable, strip_html(text))))
    for pattern in (_URL, _EMAIL, _FILE_NAME, _DOMAIN, _MENTION, _HASHTAG_RUN):
        text = pattern.sub(_link_ends, text)
    text = _EMPTY_BRACKETS.sub(" ", _HASHTAG.sub("", text))
    text = _REPEATED.sub(r"\1", " ".join(text.split()))
    text = _SPACE_BEFORE.sub("", text).strip(_LEFT_OVER)
    text = _shorten(text, rules.max_characters)
    if sum(unicodedata.category(character)[0] == "L" for character in text) < rules.min_letters:
        raise CaptionError("caption too short")
    return text


def strip_html(text: str) -> str:
    """The text that a browser would show, also of markup that was escaped once or twice (`&amp;lt;b&amp;gt;`).

    Raises:
        ImportError: `nh3` is missing.
    """
    for _ in range(3):
        if "<" not in text and "&" not in text:
            break
        shown = html.unescape(_sanitizer()(_BLOCK_TAG.sub(r" \g<0>", text), tags=set()))
        if shown == text:
            break
        text = shown
    return text


@functools.cache
def _sanitizer() -> Callable[..., str]:
    try:
        from nh3 import clean  # html.parser of the standard library takes quadratic time on "<a <a <a …"
    except ImportError as error:
        raise ImportError('cleaning captions needs nh3: pip install "gptface[prepare]"') from error
    return clean


def _link_ends(match: re.Match[str]) -> str:
    """What stands in for a link: the closing brackets and the punctuation that it was read with."""
    link = match[0]
    return " " + link[len(link.rstrip(_AFTER_LINK)) :]


def _printable(character: str) -> str:
    """The character; a space for separators and control characters; nothing for invisible ones."""
    category = unicodedata.category(character)
    if category == "Cc" or category[0] == "Z":
        return " "
    return "" if category[0] == "C" and character not in _JOINERS else character


def _shorten(text: str, limit: int) -> str:
    """
    At most `limit` characters: up to the last end of a sentence in the second half, else of a word, else a plain cut.
    """
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    sentence = max(head.rfind(end, limit // 2) for end in _SENTENCE_ENDS)
    if sentence > 0:
        return head[: sentence + 1].strip()
    word = head.rfind(" ", limit // 2)
    return head[: word if word > 0 else limit].strip(_LEFT_OVER)
