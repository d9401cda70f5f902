"""The command `gptface edit`."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_decoding_options,
    add_face_options,
    add_output_options,
    decoding_parameters,
    face_index,
    plain,
)
from .films import check_film, edit_one_film, find_film
from .photos import Photo, PhotoLog, add_photo_options, each_photo, find_photos
from .timing import Stopwatch

if TYPE_CHECKING:
    from PIL import Image

#: Probability, by the model's own heads, below which more candidates are proposed. Of 72 drawn edits of official
#: portraits those 13 below it were half beards, ages that cannot be seen or faces of somebody else; heads do not find
#: what is recognisable, but broken.
CONVINCING = 0.7
CANDIDATES = 8
#: Endings of the files that say that they are edited; a photo of another kind becomes a PNG.
WRITTEN = frozenset((".png", ".jpg", ".jpeg", ".webp"))
#: File in the folder of the edits that says what became of each photo.
LOG = "edits.jsonl"
#: Side of a photo of a contact sheet, in pixels, and the most photos on one: a WebP is 16383 pixels high at most.
SHEET_TILE, SHEET_PHOTOS = 256, 300


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("edit", help="edit faces in photos, or a face in a film, under a prompt")
    add_photo_options(parser)
    parser.add_argument("prompt", help='what the face should be, in your own words: "smiling"; see gptface edits')
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="file of the edited photo (.png, .jpg, .webp; only .png keeps every pixel outside of the edit), of the "
        "film (.mp4, .mov, .m4v, .mkv, .webm; .gif, .webp), or a folder: edits keep the photos' names there, and a "
        "run that was stopped goes on",
    )
    parser.add_argument("--overwrite", action="store_true", help="write over files in OUT that are no such edits")
    parser.add_argument(
        "--compare", action="store_true", help="also write NAME.compare: the photo and its edit, a line between"
    )
    parser.add_argument(
        "--contact-sheet", metavar="FILE", type=Path, help="also write one picture of all photos and edits, small"
    )
    parser.add_argument("--region", action="append", help="named region to change; may be given several times")
    parser.add_argument(
        "--mask", help="picture that is white where the photo may change, or the photo with that erased"
    )
    parser.add_argument(
        "--hole",
        action="store_true",
        help="what --mask covers is damaged or covered: it is filled from its edge, and the face redrawn where it is "
        "wider than a stroke",
    )
    parser.add_argument(
        "--expand-prompt",
        action=argparse.BooleanOptionalAction,
        help='whether "smiling" may become "smiling, mouth slightly open" (the default)',
    )
    parser.add_argument(
        "--any-words",
        action="store_true",
        help="pass the words on to the model as they are, whether or not gptface edits lists them",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="edit also where the face is as asked for already, as far as the model knows",
    )
    parser.add_argument(
        "--draw",
        action="store_true",
        help="draw what else is laid over the photo (glasses, hats, beards, bangs, ages, colours) or moved in it "
        "(expressions)",
    )
    parser.add_argument("--negative-prompt", help="what to move away from; acts through --guidance-scale")
    parser.add_argument("--source-prompt", help='what the face is now, such as "not smiling"')
    parser.add_argument("--strength", type=float, help="share of the region that is redrawn, in (0, 1]")
    parser.add_argument(
        "--composite",
        help='how the edit gets into the photo: "blend" (the default), "residual" keeps all of the photo\'s detail, '
        '"replace" none',
    )
    parser.add_argument(
        "--keep-colour-space",
        action=argparse.BooleanOptionalAction,
        help="whether a black-and-white or sepia photo stays one (the default)",
    )
    parser.add_argument("--feather", type=float, help="pixels over which the edit fades in")
    add_decoding_options(parser)
    parser.add_argument(
        "--state-refresh",
        type=int,
        help="compute the states of what is kept anew in one of so many steps: 1 (the default) is exact, more is "
        "faster and approximate",
    )
    parser.add_argument(
        "--candidates", type=int, help="edits to choose the best from: by the match, and by the model's own heads"
    )
    parser.add_argument(
        "--save-all", action="store_true", help="write the other candidates too, as NAME.2, NAME.3, …, best first"
    )
    parser.add_argument(
        "--timing", action="store_true", help="say on stderr where the seconds went, and how a film flickers"
    )
    add_face_options(parser)
    add_output_options(parser)
    parser.add_argument(
        "--keep-location", action="store_true", help="write into the file where the photo was taken, if that says so"
    )
    parser.set_defaults(run=run_edit)


def run_edit(options: argparse.Namespace) -> int:
    from gptface.processing.image_saving import check_output

    output = Path(options.output)
    photos = find_photos(options.photos, options.recursive, results=output)
    to_folder = options.output.endswith(("/", os.sep)) or output.is_dir() or not output.suffix
    film = find_film(photos, output, to_folder)
    if film is None and len(photos) > 1 and not to_folder:
        raise ValueError(f"{len(photos)} photos do not go into one file: name a folder, -o {output.stem}/")
    if film is None and options.contact_sheet is not None:
        check_output(options.contact_sheet)
        if len(photos) > SHEET_PHOTOS:
            raise ValueError(f"a contact sheet shows {SHEET_PHOTOS} photos at most, not {len(photos)}")
    parameters = _parameters(options)
    watch = Stopwatch()
    if film is not None:
        check_film(film, output, options)
        status = edit_one_film(_load(options, watch), film, output, options, parameters, watch)
    elif to_folder:
        outputs = _outputs(photos, output)
        _check_files(outputs, options)
        written = ("model", "save_all", "compare", "provenance", "keep_location")
        log = PhotoLog(output / LOG, {**parameters, **{name: getattr(options, name) for name in written}})
        _make_folder(options)
        with log.claimed():
            _refuse_to_lose(outputs, log, options)
            edit = _load(options, watch)
            status = _edit_into_folder(edit, outputs, log, options, parameters, watch)
    else:
        check_output(output)
        outputs = {photos[0]: output}
        _check_files(outputs, options)
        edit = _load(options, watch)
        status = _edit_one(edit, photos[0], output, options, parameters, watch)
    if options.contact_sheet is not None:
        with watch.part("contact sheet"):
            _save_sheet(edit, outputs, options)
    if options.timing:
        watch.tell()
    return status


def _load(options: argparse.Namespace, watch: Stopwatch) -> Any:
    with watch.part("loading"):
        from gptface.pipelines.pipeline_loading import load_pipeline

        edit = load_pipeline("guided-face-editing", options.model)
    watch.follow(edit)
    return edit


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The options as parameters of the pipeline's call."""
    return {
        "prompt": options.prompt,
        "region": options.region,
        "mask_image": options.mask,
        "hole": options.hole,
        "expand_prompt": options.expand_prompt,
        "strict": not options.any_words,
        "force": options.force,
        "draw": options.draw,
        "negative_prompt": options.negative_prompt,
        "source_prompt": options.source_prompt,
        "strength": options.strength,
        "composite": options.composite,
        "keep_colour_space": options.keep_colour_space,
        "feather": options.feather,
        "state_refresh": options.state_refresh,
        "num_images_per_prompt": options.candidates,
        "face": face_index(options.face),
        "aligned": options.aligned,
        **decoding_parameters(options),
    }


def _outputs(photos: Sequence[Photo], folder: Path) -> dict[Photo, Path]:
    """Where the edit of each photo goes: its name in the folder."""
    outputs: dict[Photo, Path] = {}
    for photo in photos:
        output = folder / photo.name
        if output.suffix.lower() not in WRITTEN:
            output = output.with_name(f"{output.name}.png")
        outputs.setdefault(photo, output)
    return outputs


def _check_files(outputs: Mapping[Photo, Path], options: argparse.Namespace) -> None:
    """
    Compares all files that will be written with each other and with those that are read.

    Raises:
        ValueError: one would be written twice, or over what is read.
    """
    read = {_place(photo.source): photo.source for photo in outputs}
    if options.mask is not None:
        read[_place(options.mask)] = options.mask
    owners: dict[str, str] = {}
    if options.contact_sheet is not None:
        owners[_place(options.contact_sheet)] = "the contact sheet"
    for photo, output in outputs.items():
        for file in _written(output, options):
            other = owners.setdefault(_place(file), photo.source)
            if other != photo.source:
                raise ValueError(
                    f"{other} and {photo.source} have one name, {file.name}: give the folder that both are in, with "
                    "--recursive, or write them into folders of their own"
                )
    for place in owners.keys() & read.keys():
        raise ValueError(f"{read[place]} would be overwritten by its edit: name another place")


def _place(path: str | Path) -> str:
    """What a path leads to."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # no path; the photo will say so
        return str(path)


def _written(output: Path, options: argparse.Namespace) -> list[Path]:
    """The files of one photo."""
    files = [output, *(_beside(output, rank) for rank in range(2, 1 + _candidates(options)))]
    return [*files, _beside(output, "compare")] if options.compare else files


def _candidates(options: argparse.Namespace) -> int:
    """How many candidates of a photo are written; raises `ValueError` for more than are drawn at once."""
    if not options.save_all or options.candidates is None:
        return 1
    from gptface.pipelines.face_pipeline import checked_count

    return checked_count("--candidates", options.candidates)


def _make_folder(options: argparse.Namespace) -> None:
    """Makes the folder of the edits, after complaining of what would be wrong with all photos."""
    from gptface.pipelines.edit_plan import read_requests
    from gptface.processing.regions import find_region

    read_requests(options.prompt, not options.any_words)
    for name in options.region or ():
        if name != "auto":
            find_region(name)
    Path(options.output).mkdir(parents=True, exist_ok=True)


def _refuse_to_lose(outputs: Mapping[Photo, Path], log: PhotoLog, options: argparse.Namespace) -> None:
    """Raises `FileExistsError` where there are files that would be lost."""
    if options.overwrite:
        return
    lost = [
        file
        for photo, output in outputs.items()
        if not log.has(photo)
        for file in _written(output, options)
        if os.path.exists(file)
    ]
    if lost:
        raise FileExistsError(
            f"{options.output} has {len(lost)} files that are no edits of these photos with these options, "
            f"{lost[0].name} the first: name another folder, or --overwrite"
        )


def _edit_one(
    edit: Any,
    photo: Photo,
    output: Path,
    options: argparse.Namespace,
    parameters: dict[str, Any],
    watch: Stopwatch,
) -> int:
    results = edit(photo.source, progress_bar=not options.json and sys.stderr.isatty(), **parameters)
    with watch.part("saving"):
        _save(photo, results, output, options)
    report, line = _told(results, output, options)
    print(json.dumps({"photo": photo.source, **report}) if options.json else plain(line))
    return 0


def _edit_into_folder(
    edit: Any,
    outputs: dict[Photo, Path],
    log: PhotoLog,
    options: argparse.Namespace,
    parameters: dict[str, Any],
    watch: Stopwatch,
) -> int:
    def tell(photo: Photo, results: Any) -> tuple[dict[str, Any], list[str]]:
        report, line = _told(results, outputs[photo], options)
        return report, [line]

    def write(photo: Photo, results: Any) -> None:
        outputs[photo].parent.mkdir(parents=True, exist_ok=True)
        with watch.part("saving"):
            _save(photo, results, outputs[photo], options)

    return each_photo(edit, list(outputs), options, tell, log, write, **parameters)


def _save(photo: Photo, results: Sequence[dict[str, Any]], output: Path, options: argparse.Namespace) -> None:
    """Writes the best candidate, and what else was asked for."""
    from gptface.evaluation.sheet import side_by_side
    from gptface.processing.image_loading import load_image, to_rgb
    from gptface.processing.image_saving import save_picture

    how = (options.provenance, options.keep_location)
    save_picture(results[0]["image"], output, *how)
    for result, path in zip(results[1:], _others(results, output) if options.save_all else (), strict=False):
        save_picture(result["image"], path, *how)
    if options.compare:
        edited = results[0]["image"]
        pair = side_by_side([to_rgb(load_image(photo.source)), to_rgb(edited)], gap=max(2, edited.width // 150))
        pair.info = dict(edited.info)
        save_picture(pair, _beside(output, "compare"), *how)


def _beside(output: Path, what: str | int) -> Path:
    return output.with_name(f"{output.stem}.{what}{output.suffix}")


def _others(results: Sequence[Any], output: Path) -> list[Path]:
    """The files of the candidates behind the best."""
    return [_beside(output, rank) for rank in range(2, len(results) + 1)]


def _told(results: Sequence[dict[str, Any]], output: Path, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What is reported of an edit, and the line for people."""
    best = results[0]
    told = ("prompt", "match_score", "realness", "guidance_kl", "seed", "box", "edits", "verified", "kept", "note")
    report = {"output": str(output), **{name: best[name] for name in told}}
    if options.save_all:
        report["candidates"] = [
            {
                "output": str(path),
                **{name: each[name] for name in ("match_score", "realness", "seed", "verified", "kept")},
            }
            for each, path in zip(results, [output, *_others(results, output)], strict=True)
        ]
    if options.compare:
        report["compare"] = str(_beside(output, "compare"))
    return report, f"{output}: {in_plain_words(best, len(results))}"


def _save_sheet(edit: Any, outputs: dict[Photo, Path], options: argparse.Namespace) -> None:
    """Writes the contact sheet of what is there, whichever run made it."""
    from gptface.evaluation.sheet import contact_sheet
    from gptface.processing.image_loading import load_image
    from gptface.processing.image_saving import save_picture
    from gptface.processing.provenance import EDITED, describe, mark

    done = {photo.source: output for photo, output in outputs.items() if output.is_file()}
    if not done:
        raise ValueError(f"no photo was edited: there is nothing to show in {options.contact_sheet}")
    rows: dict[str, list[Image.Image]] = {"photo": [], f"edited: {options.prompt}": []}
    for pair in done.items():
        for row, source in zip(rows.values(), pair, strict=True):
            picture = load_image(source)
            picture.thumbnail((SHEET_TILE, SHEET_TILE))
            row.append(picture)
    sheet = contact_sheet(rows, SHEET_TILE)
    mark(sheet, describe(edit.model, options.prompt, EDITED), options.seed)
    save_picture(sheet, options.contact_sheet, options.provenance)


def in_plain_words(result: dict[str, Any], candidates: int = 1) -> str:
    """
    What a result shows, in one line: what was verified, before → after, what was kept, and what to try if that does
    not convince.
    """
    from gptface.pipelines.edit_verification import changes_in_words
    from gptface.processing.edits import EDITS

    if result["match_score"] is None:
        return result["note"]
    verified, kept = result["verified"], result["kept"]
    told = ", ".join(changes_in_words(verified)) or result["prompt"]
    stayed = [f"outside of the edit {kept['outside']:.0%}"]
    if kept["attributes"] is not None:
        stayed.insert(0, f"other attributes {kept['attributes']:.0%}")
    parts = [f"{told} (match {result['match_score']:+.2f}); kept: {', '.join(stayed)}"]
    if result["note"]:
        parts.append(result["note"])
    # what is not drawn is the same in all candidates or nearly so, and the heads often miss it
    drawn = [each["after"] for name, each in verified.items() if EDITS[name].transfer is None]
    if any(after < CONVINCING for after in drawn):
        more = f"--candidates {CANDIDATES}" if candidates < CANDIDATES else "another --seed"
        parts.append(f"not convincing: try {more}")
    return "; ".join(parts)
