"""The command `gptface generate`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .common import add_decoding_options, add_output_options, decoding_parameters


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("generate", help="make a face under a prompt")
    parser.add_argument("prompt", help='what the face should be: "a smiling woman"')
    parser.add_argument("-o", "--output", required=True, help="file of the face (.png, .jpg, .webp)")
    parser.add_argument("--negative-prompt", help="what to move away from; acts through --guidance-scale")
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--candidates", type=int, help="faces to choose the best match from")
    parser.add_argument(
        "--draw",
        action="store_true",
        help="let the model draw glasses, hats, beards and earrings; by default they are laid over the face it draws",
    )
    add_decoding_options(parser)
    add_output_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_generate)


def run_generate(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline
    from gptface.processing.image_saving import check_output, save_picture

    output = Path(options.output)
    check_output(output)
    make = load_pipeline("text-to-face", options.model)
    best = make(
        options.prompt,
        negative_prompt=options.negative_prompt,
        draw=options.draw,
        num_images_per_prompt=options.candidates,
        progress_bar=not options.json and sys.stderr.isatty(),
        **decoding_parameters(options),
    )[0]
    save_picture(best["image"], output, options.provenance)
    report = {"output": str(output), **{name: best[name] for name in ("match_score", "guidance_kl", "seed", "edits")}}
    print(json.dumps(report) if options.json else f"{output}: {options.prompt} (match {best['match_score']:+.2f})")
    return 0
