"""The command line `gptface`. Each command imports what it needs when it runs."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptface.conversion.cli import add_convert_parser
from gptface.modeling_gptface.guidance import GuidanceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Errors a user can mend are one line on stderr and status 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        return options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError, GuidanceError) as error:
        print(f"gptface {options.command}: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(prog="gptface", description="Edit, classify and learn faces.")
    parser.add_argument("--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_edit(commands)
    _add_classifier(commands, "classify", "face-attribute-classification", "face attributes", run_classify)
    _add_classifier(commands, "expression", "facial-expression", "facial expression", run_classify)
    _add_encode(commands)
    _add_pretrain(commands)
    add_convert_parser(commands)
    return parser


def _add_face_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--aligned", action="store_true", help="the photo is an aligned face crop already")
    parser.add_argument("--face", default="largest", help='"largest", "all" or an index, 0 the largest')
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def _face(value: str) -> str | int:
    return int(value) if value.lstrip("-").isdigit() else value


def _add_edit(commands: Any) -> None:
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
    _add_face_options(parser)
    parser.set_defaults(run=run_edit)


def run_edit(options: argparse.Namespace) -> int:
    output = Path(options.output)
    _check_output(output)
    edit = _pipeline("guided-face-editing", options.model)
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
        face=_face(options.face),
        aligned=options.aligned,
        progress_bar=not options.json and sys.stderr.isatty(),
    )
    best = results[0]
    save_picture(best["image"], output)
    report = {"output": str(output), **{name: best[name] for name in ("match_score", "seed", "box")}}
    print(json.dumps(report) if options.json else f"{output}: {options.prompt} (match {best['match_score']:+.2f})")
    return 0


def _check_output(path: Path) -> None:
    """Complains before the work is done, not after it."""
    from PIL import Image

    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"{path}: unknown picture format {path.suffix!r}; use .png, .jpg or .webp")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: make it first")


def save_picture(image: Any, path: Path) -> None:
    """Writes a PIL picture in the format of the name, with its ICC profile; the file appears whole."""
    from PIL import Image

    image_format = Image.EXTENSION[path.suffix.lower()]
    if image_format == "JPEG":
        image = image.convert("RGB")
    extra = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=path.suffix, delete=False) as scratch:
        try:
            image.save(scratch, format=image_format, icc_profile=image.info.get("icc_profile"), **extra)
        except BaseException:
            os.unlink(scratch.name)
            raise
    os.chmod(scratch.name, 0o644)
    os.replace(scratch.name, path)


def _add_classifier(commands: Any, name: str, task: str, what: str, run: Any) -> None:
    parser = commands.add_parser(name, help=f"{what} of the faces in photos")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--threshold", type=float)
    _add_face_options(parser)
    parser.set_defaults(run=run, task=task)


def run_classify(options: argparse.Namespace) -> int:
    classify = _pipeline(options.task, options.model)
    results = classify(
        options.photos,
        top_k=options.top_k,
        threshold=options.threshold,
        face=_face(options.face),
        aligned=options.aligned,
        on_error="return",
    )
    failed = False
    for photo, result in zip(options.photos, results, strict=True):
        error = result.get("error") if isinstance(result, dict) else None
        failed |= error is not None
        if options.json:
            print(json.dumps({"photo": photo, **({"error": error} if error else {"scores": result})}))
        elif error:
            print(f"{photo}: {error}", file=sys.stderr)
        else:
            for face in [result] if options.face != "all" else result:
                print(f"{photo}: " + ", ".join(f"{entry['label']} {entry['score']:.2f}" for entry in face))
    return 2 if failed else 0


def _pipeline(task: str, model: str | None) -> Any:
    from transformers import pipeline
    from transformers.utils import logging as transformers_logging

    import gptface

    transformers_logging.disable_progress_bar()
    return pipeline(task, model=model or gptface.DEFAULT_CHECKPOINT)  # type: ignore[call-overload]


def _add_encode(commands: Any) -> None:
    parser = commands.add_parser("encode", help="encode a parquet file of aligned faces into codes, once")
    parser.add_argument("data", type=Path, help="parquet file with an `image` column")
    parser.add_argument("output", type=Path, help="folder of the parts; a stopped run goes on there")
    parser.add_argument("--image-tokenizer", help="folder of an image tokenizer; the embedded one by default")
    parser.add_argument("--layout", default="celeba", help='"celeba", "aligned", "fer48" or "utkface128"')
    parser.add_argument("--no-flips", action="store_true", help="do not encode mirror images too")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="encode each N-th row only")
    parser.set_defaults(run=run_encode)


def run_encode(options: argparse.Namespace) -> int:
    from gptface import DEFAULT_CHECKPOINT, GPTFaceImageTokenizer, GPTFaceModel
    from gptface.training.encode import encode_parquet

    if options.image_tokenizer:
        tokenizer = GPTFaceImageTokenizer.from_pretrained(options.image_tokenizer)
    else:
        tokenizer = GPTFaceModel.from_pretrained(DEFAULT_CHECKPOINT).image_tokenizer
    rows = encode_parquet(options.data, options.output, tokenizer, options.layout, not options.no_flips, options.every)
    print(f"{options.output}: {rows} rows")
    return 0


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser("pretrain", help="pre-train (MILM and ITM) by a recipe; resumes where it stopped")
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes")
    parser.add_argument("--from", dest="start_from", help="folder of a checkpoint to continue from")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.set_defaults(run=run_pretrain)


def run_pretrain(options: argparse.Namespace) -> int:
    from gptface.training.pretrain import PreTrainingConfig, pretrain

    overrides = {"start_from": options.start_from, "output_dir": options.output_dir}
    config = PreTrainingConfig.from_yaml(options.config, **{k: v for k, v in overrides.items() if v is not None})
    print(pretrain(config))
    return 0
