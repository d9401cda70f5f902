"""The model learns what captions say: what was written for machines must go, what people said must stay, in any
language.
"""

import contextlib
import time

import pytest

from gptface.data.caption_cleaning import CaptionError, CaptionRules, clean_caption


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<b>Portrait</b> of A &amp; B", "Portrait of A & B"),
        ("&amp;lt;b&amp;gt;bold&amp;lt;/b&amp;gt; face", "bold face"),
        ("one<br>two<p>three", "one two three"),
        ("<script>alert(1)</script>hello you<!-- not me -->", "hello you"),
        ("I <3 her, 5 < 6 and 7 > 3", "I <3 her, 5 < 6 and 7 > 3"),
        ("see https://example.com/x?y=1&z=2, smiling", "see, smiling"),
        ("A man (www.example.com) smiling  !", "A man smiling!"),
        ("Jane Doe - Getty Images | alamy.com", "Jane Doe - Getty Images"),
        ("mail a.b+c@d-e.co.uk now", "mail now"),
        ("IMG_1234.jpg an old man", "an old man"),
        ("photo by @someone of a child", "photo by of a child"),
        ("a #smiling woman #love #instagood, #me", "a smiling woman"),
        ("#1 dad and C# and B&W", "#1 dad and C# and B&W"),
        (" a \t face\r\n\x00with\u200b\ufeff lines\u2028 ", "a face with lines"),
        ("wow!!!!!!!! what ------ a face", "wow! what - a face"),
        ("e\u0301te\u0301", "été"),
        ("微笑的女人。", "微笑的女人。"),
        ("زن می\u200cخندد", "زن می\u200cخندد"),
        ("मुस्कुराती महिला", "मुस्कुराती महिला"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_what_goes_and_what_stays(raw, clean):
    assert clean_caption(raw) == clean


@pytest.mark.parametrize(
    "raw", ["", "  ", "12345", "!?", "IMG_1234.jpg", "<img src=x onerror=alert(1)>", "https://a.b/c", "x"]
)
def test_what_is_no_caption(raw):
    with pytest.raises(CaptionError, match="caption too short"):
        clean_caption(raw)


def test_long_captions_end_with_a_sentence_or_a_word():
    assert clean_caption("An old man. He smiles at us.", CaptionRules(max_characters=20)) == "An old man."
    assert clean_caption("an old man who smiles at us", CaptionRules(max_characters=20)) == "an old man who"
    assert clean_caption("微" * 30, CaptionRules(max_characters=20)) == "微" * 20


@pytest.mark.parametrize("bounds", [(0, 10), (11, 10)])
def test_bounds_that_no_caption_meets_are_refused(bounds):
    with pytest.raises(ValueError, match="at least 1 letter"):
        CaptionRules(*bounds)


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        '<a b="',
        "&",
        "&#",
        "<!--",
        "<script>",
        "#a ",
        "a.",
        "a@",
        "a@b.",
        "..",
        "(",
        "( ",
        "=-",
        "www.",
        "@",
    ],
)
def test_no_text_takes_long(piece):
    started = time.process_time()
    with contextlib.suppress(CaptionError):
        clean_caption(piece * (200_000 // len(piece)), CaptionRules(max_characters=1000))
    assert time.process_time() - started < 1.5
