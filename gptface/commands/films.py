"""Films in the command `gptface edit`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .photos import Photo
from .timing import Stopwatch

#: Options that are about photos alone.
OF_PHOTOS = ("compare", "contact_sheet", "save_all")


def find_film(photos: Sequence[Photo], output: Path, to_folder: bool) -> Photo | None:
    """
    The film among the inputs of a command, which is then the only one; an animated GIF or WebP is one where the output
    can be animated, too, and else a photo, its first frame.

    Raises:
        ValueError: a video that is to go into a folder or with other inputs.
    """
    from gptface.processing.film_files import ANIMATIONS, is_film

    for photo in photos:
        if not is_film(photo.source):
            continue
        alone = len(photos) == 1 and not to_folder
        if Path(photo.source).suffix.lower() not in ANIMATIONS:
            if not alone:
                raise ValueError(
                    f"{photo.source} is a film: films are edited one at a time, -o {Path(photo.name).stem}.mp4"
                )
            return photo
        if alone and output.suffix.lower() in ANIMATIONS:
            return photo
    return None


def check_film(film: Photo, output: Path, options: argparse.Namespace) -> None:
    """
    Complains before the model is loaded.

    Raises:
        ValueError: an option that is about photos alone, or a name that no such film can have.
        FilmInputError: no film that can be edited.
        ImportError: a video without PyAV.
    """
    from gptface.processing.film_files import check_film_output, open_film

    for name in OF_PHOTOS:
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} is for photos: leave it out for a film")
    check_film_output(film.source, output)
    open_film(film.source)


def edit_one_film(
    edit: Any,
    film: Photo,
    output: Path,
    options: argparse.Namespace,
    parameters: Mapping[str, Any],
    watch: Stopwatch,
) -> int:
    """Edits a film and prints what became of it; returns the exit status."""
    from tqdm import tqdm

    from gptface.pipelines.film_editing import edit_film

    with tqdm(unit="frame", disable=options.json or not sys.stderr.isatty()) as bar, watch.part("film"):

        def show(what: str, done: int, total: int) -> None:
            bar.total = 2 * total
            bar.set_description(what, refresh=False)
            bar.update((done if what == "looking" else total + done) - bar.n)

        report = edit_film(
            edit,
            film.source,
            output=output,
            progress=show,
            provenance=options.provenance,
            keep_location=options.keep_location,
            **parameters,
        )
    print(json.dumps({"film": film.source, **report}) if options.json else f"{output}: {film_in_plain_words(report)}")
    if options.timing:
        flicker = "nothing" if report["flicker"] is None else f"{report['flicker']:.2f}"
        print(f"difference of frames inside of the edit, over that of the source: {flicker}", file=sys.stderr)
    return 0


def film_in_plain_words(report: Mapping[str, Any]) -> str:
    """What became of a film, in one line."""
    from gptface.pipelines.edit_verification import changes_in_words

    decided = report["decided"]
    done = [changes_in_words(each["verified"]) or [each["prompt"]] for each in decided if each["note"] is None]
    told = ", ".join(dict.fromkeys(change for changes in done for change in changes)) or decided[0]["note"]
    scenes = "1 scene" if report["scenes"] == 1 else f"{report['scenes']} scenes"
    return f"{told}; {report['edited_frames']} of {report['frames']} frames in {scenes}"
