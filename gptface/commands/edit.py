"""The command `gptface edit`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .common import add_face_options, check_output, face_index, load_pipeline, save_picture


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("edit", help="edit a face in a photo under a prompt")
    parser.add_argument("photo")
    parser.add_argument("prompt")
    parser.add_argument("-o", "--output", required=True, help="file of the edited photo (.png, .jpg, .webp)")
    parser.add_argument("--region", action="append", help="named region to change; may be given several times")
    parser.add_argument("--mask", help="picture that is white where the photo may change")
    parser.add_argument("--negative-prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="decoding steps")
    parser.add_argument("--strength", type=float, help="share of the region that is redrawn, in (0, 1]")
    parser.add_argument("--guidance-scale", type=float, help="classifier-free guidance, 1 = off")
    parser.add_argument("--itm-guidance", type=float, help="guidance by image-text matching, 0 = off")
    parser.add_argument("--candidates", type=int, help="edits to choose the best match from")
    add_face_options(parser)
    parser.set_defaults(run=run_edit)


def run_edit(options: argparse.Namespace) -> int:
    output = Path(options.output)
    check_output(output)
    edit = load_pipeline("guided-face-editing", options.model)
    results = edit(
        options.photo,
        prompt=options.prompt,
        region=options.region,
        mask_image=options.mask,
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        num_inference_steps=options.steps,
        strength=options.strength,
        guidance_scale=options.guidance_scale,
        itm_guidance=options.itm_guidance,
        num_images_per_prompt=options.candidates,
        face=face_index(options.face),
        aligned=options.aligned,
        progress_bar=not options.json and sys.stderr.isatty(),
    )
    best = results[0]
    save_picture(best["image"], output)
    report = {"output": str(output), **{name: best[name] for name in ("match_score", "seed", "box")}}
    print(json.dumps(report) if options.json else f"{output}: {options.prompt} (match {best['match_score']:+.2f})")
    return 0
