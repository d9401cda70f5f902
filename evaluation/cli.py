"""The command `gptface evaluate KIND`: which kinds there are, their options, and how figures are printed.

The module of a protocol is imported when its kind runs: `gptface --help` waits for no torch.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arms import ARMS, CRITIC_ARMS

#: What `sharpness`, `seam` and `area` measure unless told otherwise.
DEFAULT_EDITS = ("smiling", "not_smiling", "eyeglasses", "beard", "blond_hair")
#: Figures of single labels, which only the JSON shows.
LONG_FIGURES = ("auc_per_attribute", "per_label")
_LAYOUT_HELP = (
    "of the pictures, as in `gptface encode`; by default it is guessed from their size, and tightly cut pictures "
    "(RAF-DB, FER+) are searched for the face as the pipelines do it"
)


@dataclass(frozen=True)
class Kind:
    """
    A kind of evaluation.

    Args:
        name: of the sub-command.
        text: its line in the help.
        protocol: "module:function" in this package; the function takes the parsed options and returns figures by name.
        add_options: adds to a parser what the kind knows besides `--data`, `--model` and `--json`.
        constants: further entries of the parsed options.
    """

    name: str
    text: str
    protocol: str
    add_options: Callable[[argparse.ArgumentParser], None]
    constants: dict[str, Any] = field(default_factory=dict)

    def add_parser(self, kinds: Any) -> None:
        """Adds the kind to the sub-commands of `gptface evaluate`."""
        parser = kinds.add_parser(self.name, help=self.text)
        parser.add_argument(
            "--data",
            required=True,
            help="labelled faces: parquet file with an `image` column, tars with .json, or a folder",
        )
        parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        self.add_options(parser)
        parser.set_defaults(run=run_kind, protocol=self.protocol, **self.constants)


def _crop_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=100, help="faces, the first in file order")
    parser.add_argument("--layout", default="celeba", help="of the pictures, as in `gptface encode`")


def _judge_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--judge", type=Path, help="safetensors file of the judge; that of the checkout by default")


def _lpips_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lpips-weights", type=Path, help="safetensors file of LPIPS; without it there is no LPIPS")


def _caption_options(parser: argparse.ArgumentParser) -> None:
    _crop_options(parser)
    parser.add_argument("--tokens", type=int, help="length of the captions")


def _judged_edit(name: str) -> str:
    """The name of an edit that the judge knows."""
    from .judged_edits import EDITS

    if name not in EDITS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(sorted(EDITS))}")
    return name


def _editing_options(parser: argparse.ArgumentParser) -> None:
    _crop_options(parser)
    _judge_option(parser)
    _lpips_option(parser)
    parser.add_argument(
        "--edit",
        required=True,
        type=_judged_edit,
        metavar="NAME",
        help="such as smiling or no_beard",
    )
    parser.add_argument(
        "--arms",
        default=",".join(ARMS),
        help=f"comma-separated, out of {', '.join((*ARMS, *CRITIC_ARMS))}; `itm=0.5` or `both=0.5` is the arm with "
        "that step size, `real=0.5` the one with that weight of the critic in the guidance",
    )
    parser.add_argument(
        "--state-refresh", type=int, default=1, help="of the pipeline: 1 = exact, more is faster and approximate"
    )
    parser.add_argument(
        "--expand-prompt", action=argparse.BooleanOptionalAction, default=True, help="of the pipeline, its default"
    )
    parser.add_argument(
        "--draw", action="store_true", help="of the pipeline: the model draws what else is laid over the photo"
    )
    parser.add_argument("--sheet", type=Path, help="picture of all faces before and after")


def _change_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=20, help="photos, the first in file order with a face")
    parser.add_argument(
        "--edits", default=",".join(DEFAULT_EDITS), help="comma-separated, of those that `gptface edits --json` names"
    )
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned face crops")


def _seam_options(parser: argparse.ArgumentParser) -> None:
    _change_options(parser)
    _lpips_option(parser)


def _generation_options(parser: argparse.ArgumentParser) -> None:
    _crop_options(parser)
    _judge_option(parser)
    _lpips_option(parser)
    parser.add_argument("--sheet", type=Path, help="picture of all faces")


def _hole_options(parser: argparse.ArgumentParser) -> None:
    _crop_options(parser)
    _lpips_option(parser)
    parser.add_argument("--prompt", default="a face", help="what the face is")
    parser.add_argument("--sheet", type=Path, help="picture of all faces and what filled their holes")


def _unmask_options(parser: argparse.ArgumentParser) -> None:
    _hole_options(parser)
    parser.add_argument(
        "--face-masks",
        action="store_true",
        help="paint masks that people wear on faces whose parts --data knows, and ask to take them off",
    )


def _critic_options(parser: argparse.ArgumentParser) -> None:
    _crop_options(parser)
    parser.add_argument("--batches", type=int, default=12, help="of 32 faces that are drawn in part, or are another's")


def _matching_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", default="celeba", help="of the pictures, as in `gptface encode`")
    parser.add_argument(
        "--unigram", help="training faces (parquet or encoded folder) whose codes are counted per cell"
    )
    parser.add_argument(
        "--per-attribute", type=int, default=20, help="most positive and most negative faces of a single attribute"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="faces that go through the model at once")


def _limit_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=int, default=sys.maxsize, help="faces, the first in file order; all by default"
    )


def _parsing_options(parser: argparse.ArgumentParser) -> None:
    _limit_option(parser)
    parser.add_argument(
        "--face-masks", action="store_true", help="paint a mask over mouth and nose of each face before it is parsed"
    )


def _tokenizer_options(parser: argparse.ArgumentParser) -> None:
    _limit_option(parser)
    parser.add_argument("--layout", default="celeba", help="of the pictures, as in `gptface encode`")
    parser.add_argument("--lpips-weights", type=Path, help="safetensors file of LPIPS; the `lpips` package by default")


def _label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", help=_LAYOUT_HELP)
    parser.add_argument("--limit", type=int, help="measure at most so many rows, evenly spread over the file")
    parser.add_argument("--batch-size", type=int, default=32, help="faces that go through the model at once")


def _recognition_options(parser: argparse.ArgumentParser) -> None:
    _label_options(parser)
    parser.add_argument("--labels", help="column of the class, or 0/1 columns separated by commas")


def _head_options(parser: argparse.ArgumentParser) -> None:
    _recognition_options(parser)
    parser.add_argument("--head", required=True, help="of the checkpoint, as in its config.json")


def _group_options(parser: argparse.ArgumentParser) -> None:
    _label_options(parser)
    parser.add_argument("--young-below", type=int, default=40, metavar="YEARS", help="age from which Young is false")


KINDS = (
    Kind(
        "caption",
        "F1 of the attributes that captions state, guided and not",
        "captioning:run_caption",
        _caption_options,
    ),
    Kind(
        "sharpness",
        "how sharp edited areas are beside the photo's own",
        "changes:run_changes",
        _change_options,
    ),
    Kind(
        "seam",
        "how edits meet the photo at their edge",
        "changes:run_changes",
        _seam_options,
    ),
    Kind(
        "area",
        "what edits change of ears, background and clothes, and how well new hair colours cover hair",
        "changes:run_changes",
        _change_options,
    ),
    Kind(
        "editing",
        "success, side effects and cost of an edit, with and without guidance",
        "editing:run_editing",
        _editing_options,
    ),
    Kind(
        "generation",
        "judged attributes of faces made from text, and how two seeds differ",
        "generation:run_generation",
        _generation_options,
    ),
    Kind(
        "inpaint",
        "fill rectangles and scratches, beside simple baselines",
        "inpainting:run_holes",
        _hole_options,
        {"holes": ("rectangles", "scratches")},
    ),
    Kind(
        "unmask",
        "redraw the lower face under a painted mask, beside simple baselines",
        "inpainting:run_holes",
        _unmask_options,
        {"holes": ("lower_face",)},
    ),
    Kind(
        "matching",
        "image-text matching (AUC) and masked codes and words",
        "matching:run_matching",
        _matching_options,
    ),
    Kind(
        "critic",
        "how well single drawn tokens are told from those of photos (AUC)",
        "critic:run_critic",
        _critic_options,
    ),
    Kind(
        "parsing",
        "intersection over union of what the face parser finds, and its time",
        "parsing:run_parsing",
        _parsing_options,
    ),
    Kind(
        "attributes",
        "accuracy, balanced accuracy, F1, AP and calibration of the attribute head",
        "recognition:run_recognition",
        _recognition_options,
        {"head": "attributes"},
    ),
    Kind(
        "expression",
        "accuracy, balanced accuracy, F1 and calibration of the expression head",
        "recognition:run_recognition",
        _recognition_options,
        {"head": "expression"},
    ),
    Kind(
        "head",
        "the same of any other classification head",
        "recognition:run_recognition",
        _head_options,
    ),
    Kind(
        "groups",
        "accuracy of Male and Young, and the error of age, by gender, age and race (UTKFace's columns)",
        "recognition:run_groups",
        _group_options,
    ),
    Kind(
        "saliency",
        'share of the gradient inside the region that a prompt is about ("auto")',
        "saliency:run_saliency",
        _crop_options,
    ),
    Kind(
        "tokenizer",
        "what the image tokenizer's codes keep of faces (PSNR, LPIPS), use of the codes, time",
        "tokenizer:run_tokenizer",
        _tokenizer_options,
    ),
)


def add_evaluate_parser(commands: Any) -> None:
    """Adds `evaluate` with all kinds to the sub-commands of a parser."""
    parser = commands.add_parser("evaluate", help="measure a checkpoint by a fixed protocol")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in KINDS:
        kind.add_parser(kinds)


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Parsed options of a kind → its figures by name."""
    module, _, function = options.protocol.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), function)(options)


def run_kind(options: argparse.Namespace) -> int:
    """Prints the figures as one JSON object, or one a line."""
    report = evaluate(options)
    if options.json:
        print(json.dumps(report))
        return 0
    for name, value in _flat(report):
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    return 0


def _flat(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The figures with the names of what they are nested in in front: `groups.age.18-29.Male`."""
    for name, value in report.items():
        if name in LONG_FIGURES:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
