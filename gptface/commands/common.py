"""What several commands share: options about faces, pipelines, picture files."""

import argparse
import contextlib
import json
import sys
from typing import Any


def add_face_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--aligned", action="store_true", help="the photo is an aligned face crop already")
    parser.add_argument("--face", default="largest", help='"largest", "all" or an index, 0 the largest')
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Options of what is generated; without one the pipeline's default holds. [`decoding_parameters`] reads them."""
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="the same seed gives the same result; 0 by default"
    )
    parser.add_argument("--steps", type=int, help="decoding steps")
    parser.add_argument("--temperature", type=float, help="how freely codes are drawn, 0 = the likeliest")
    parser.add_argument("--decoding", help='"parallel", "span", "one_shot" or "critic"')
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest codes only")
    parser.add_argument("--guidance-scale", type=float, help="classifier-free guidance, 1 = off")
    parser.add_argument("--itm-guidance", type=float, help="guidance by image-text matching, 0 = off")


def decoding_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The options of [`add_decoding_options`] as a pipeline's parameters."""
    names = ("seed", "temperature", "decoding", "top_k", "guidance_scale", "itm_guidance")
    return {"num_inference_steps": options.steps, **{name: getattr(options, name) for name in names}}


def seed_number(value: str) -> int:
    """A whole number of at most 63 bits, as the generators take it."""
    with contextlib.suppress(ValueError):
        if -(2**63) <= int(value) < 2**63:
            return int(value)
    raise argparse.ArgumentTypeError(f"must be a whole number within 63 bits, got {value!r}")


def face_index(value: str) -> str | int:
    return int(value) if value.lstrip("-").isdigit() else value


def plain(text: str, kept: str = "") -> str:
    """
    A text for a terminal, without what would act on it: a file's name, or a label of a checkpoint from anybody, can
    hold characters that move the cursor or clear the screen. They are written as Python writes them (`\\x1b`).

    Args:
        kept: characters that stay.
    """
    return "".join(each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text)


def report_error(photo: str, result: Any, as_json: bool) -> bool:
    """
    Prints the error that a pipeline put in the place of a photo's result, if it is one: a JSON line, or one on stderr.
    """
    error = result.get("error") if isinstance(result, dict) else None
    if error is None:
        return False
    if as_json:
        print(json.dumps({"photo": photo, "error": error}))
    else:
        print(plain(f"{photo}: {error}"), file=sys.stderr)
    return True


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--no-provenance`, of the commands that write pictures."""
    parser.add_argument(
        "--no-provenance",
        action="store_false",
        dest="provenance",
        help="do not write into the file that it is edited or generated, by which model, prompt and seed",
    )


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the named options that were given, by their names: what they replace of a recipe."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
