"""The command `gptface edit`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .common import add_decoding_options, add_face_options, add_output_options, decoding_parameters, face_index

#: Probability, by the model's own heads, below which more candidates are proposed.
CONVINCING = 0.5


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("edit", help="edit a face in a photo under a prompt")
    parser.add_argument("photo")
    parser.add_argument("prompt")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="file of the edited photo (.png, .jpg, .webp); only .png keeps every pixel outside of the edit",
    )
    parser.add_argument("--region", action="append", help="named region to change; may be given several times")
    parser.add_argument(
        "--mask", help="picture that is white where the photo may change, or the photo with that erased"
    )
    parser.add_argument(
        "--hole",
        action="store_true",
        help="what --mask covers is damaged or covered: it is filled from its edge, and the face redrawn where it is wider than a stroke",
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
    parser.add_argument("--negative-prompt")
    parser.add_argument("--source-prompt", help='what the face is now, such as "not smiling"')
    parser.add_argument("--strength", type=float, help="share of the region that is redrawn, in (0, 1]")
    parser.add_argument(
        "--composite",
        help='how the edit gets into the photo: "blend" (the default), "residual" keeps all of the photo\'s detail, "replace" none',
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
        help="compute the states of what is kept anew in one of so many steps: 1 (the default) is exact, more is faster and approximate",
    )
    parser.add_argument("--candidates", type=int, help="edits to choose the best match from")
    add_face_options(parser)
    add_output_options(parser)
    parser.add_argument(
        "--keep-location", action="store_true", help="write into the file where the photo was taken, if that says so"
    )
    parser.set_defaults(run=run_edit)


def run_edit(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline
    from gptface.processing.image_saving import check_output, save_picture

    output = Path(options.output)
    check_output(output)
    edit = load_pipeline("guided-face-editing", options.model)
    results = edit(
        options.photo,
        prompt=options.prompt,
        region=options.region,
        mask_image=options.mask,
        hole=options.hole,
        expand_prompt=options.expand_prompt,
        strict=not options.any_words,
        force=options.force,
        negative_prompt=options.negative_prompt,
        source_prompt=options.source_prompt,
        strength=options.strength,
        composite=options.composite,
        keep_colour_space=options.keep_colour_space,
        feather=options.feather,
        state_refresh=options.state_refresh,
        num_images_per_prompt=options.candidates,
        face=face_index(options.face),
        aligned=options.aligned,
        progress_bar=not options.json and sys.stderr.isatty(),
        **decoding_parameters(options),
    )
    best = results[0]
    save_picture(best["image"], output, options.provenance, options.keep_location)
    told = ("prompt", "match_score", "guidance_kl", "seed", "box", "edits", "verified", "note")
    report = {"output": str(output), **{name: best[name] for name in told}}
    print(json.dumps(report) if options.json else f"{output}: {in_plain_words(best)}")
    return 0


def in_plain_words(result: dict[str, Any]) -> str:
    """What a result shows, in one line."""
    if result["note"]:
        return result["note"]
    changes = [
        f"{name.replace('_', ' ')} {each['before']:.0%} → {each['after']:.0%}"
        for name, each in result["verified"].items()
    ]
    line = f"{result['prompt']} (match {result['match_score']:+.2f}{''.join(f', {change}' for change in changes)})"
    if any(each["after"] < CONVINCING for each in result["verified"].values()):
        line += "; not convincing yet: try --candidates 8"
    return line
