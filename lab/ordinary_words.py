"""
Ordinary words that a prompt's reader would take for misspelled words of the table of edits.

    python lab/ordinary_words.py /usr/share/dict/american-english-small

WORDS is a file with a word a line; the list of the package was made of SCOWL's small one (Debian's wamerican-small).
Prints them, sorted, for `processing/ordinary_words.py`; to be run again when the table has new words. Inflected forms
of its words ("curl", "surprises") are not among them: they mean what the table means.
"""

import argparse
import textwrap
from pathlib import Path

from gptface.processing.prompt_reading import nearest_word

STEM = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", type=Path, metavar="WORDS")
    words = set(parser.parse_args().words.read_text(encoding="utf-8").split())
    plain = (word for word in words if word.isascii() and word.isalpha() and word.islower())
    near = {word: meant for word in plain if (meant := nearest_word(word)) is not None}
    found = sorted(word for word, meant in near.items() if not is_form(word, meant))
    print(textwrap.fill(" ".join(found), width=113, initial_indent="    ", subsequent_indent="    "))


def is_form(word: str, of: str) -> bool:
    """Whether a word is an inflected form of another, as far as their letters tell."""
    longer = len(word) >= STEM - 1 and of.startswith(word)
    return longer or word.startswith(of) or of == word + "y" or word[:STEM] == of[:STEM]


if __name__ == "__main__":
    main()
