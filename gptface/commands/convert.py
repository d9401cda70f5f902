"""The command `gptface convert`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptface.conversion.report import ConversionReport


def add_parser(commands: Any) -> None:
    """Adds `convert {original,vqgan,bert,parser}` to the sub-commands of a parser."""
    parser = commands.add_parser("convert", help="checkpoints of other layouts into GPTFace folders and back")
    kinds = parser.add_subparsers(dest="kind", required=True)
    _add_original(kinds)
    _add_vqgan(kinds)
    _add_bert(kinds)
    _add_parser(kinds)


def _add_original(kinds: Any) -> None:
    parser = kinds.add_parser("original", help="a checkpoint of the original training stack, or back with --reverse")
    parser.add_argument("--transformer", type=Path, metavar="FILE", help="state dict of the transformer")
    parser.add_argument("--config", type=Path, metavar="FILE", help="its configuration (JSON)")
    _add_vqgan_files(parser)
    parser.add_argument("--vocab", type=Path, metavar="FILE", help="text vocabulary, one entry a line")
    parser.add_argument(
        "--max-text-length",
        type=int,
        metavar="N",
        help="positions of the text part, padding included; by default all positions in front of the image",
    )
    parser.add_argument(
        "--reverse", type=Path, metavar="FOLDER", help="write this GPTFace folder in the original layout"
    )
    _add_output(parser, run_original)


def _add_vqgan(kinds: Any) -> None:
    parser = kinds.add_parser(
        "vqgan", help="a VQGAN of taming-transformers into an image tokenizer, or one into a diffusers VQModel"
    )
    _add_vqgan_files(parser)
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the pictures; the VQGAN's by default"
    )
    parser.add_argument(
        "--to-diffusers",
        type=Path,
        metavar="FOLDER",
        help="write the image tokenizer in this folder (alone or in a model) as a diffusers VQModel",
    )
    _add_output(parser, run_vqgan)


def _add_bert(kinds: Any) -> None:
    parser = kinds.add_parser("bert", help="a BERT-shaped encoder as the start of a model")
    parser.add_argument("encoder", type=Path, help="folder of the encoder with its vocabulary")
    parser.add_argument(
        "--image-tokenizer",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="image tokenizer, or a model that has one",
    )
    parser.add_argument("--words", type=Path, metavar="FILE", help="keep the vocabulary of these words, one a line")
    parser.add_argument("--max-text-length", type=int, default=64, metavar="N", help="most text tokens")
    _add_output(parser, run_bert)


def _add_parser(kinds: Any) -> None:
    parser = kinds.add_parser("parser", help="a checkpoint with a face parser put inside")
    parser.add_argument("checkpoint", help="folder or Hub name of the checkpoint")
    parser.add_argument("face_parser", help="folder of the face parser, or of a model that has one")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.set_defaults(run=run_parser)


def _add_vqgan_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vqgan", type=Path, metavar="FILE", help="checkpoint of the VQGAN in taming's layout")
    parser.add_argument("--vqgan-config", type=Path, metavar="FILE", help="its configuration (YAML)")


def _add_output(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("output", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def run_original(options: argparse.Namespace) -> int:
    """Converts a checkpoint of the original stack, or a GPTFace folder back into one."""
    needed = ("transformer", "config", "vqgan", "vqgan_config")
    _check_direction(options, "reverse", needed, ("vocab", "max_text_length"))
    from gptface.conversion.original import convert_original, export_original

    if options.reverse is not None:
        return _finish(export_original(options.reverse, options.output), options)
    report = convert_original(
        options.transformer,
        options.config,
        options.vqgan,
        options.vqgan_config,
        options.output,
        options.vocab,
        options.max_text_length,
    )
    if options.vocab is None:
        print("no --vocab, so the folder has no tokenizer", file=sys.stderr)
    return _finish(report, options)


def run_vqgan(options: argparse.Namespace) -> int:
    """Converts a VQGAN, or exports an image tokenizer to diffusers."""
    _check_direction(options, "to_diffusers", ("vqgan", "vqgan_config"), ("image_size",))
    if options.to_diffusers is not None:
        from gptface.conversion.diffusers_export import export_diffusers

        return _finish(export_diffusers(options.to_diffusers, options.output), options)
    from gptface.conversion.vqgan import convert_vqgan

    report = convert_vqgan(options.vqgan, options.vqgan_config, options.output, options.image_size)
    return _finish(report, options)


def run_bert(options: argparse.Namespace) -> int:
    """Starts a model from a BERT-shaped encoder."""
    from gptface.conversion.bert import convert_bert

    words = None if options.words is None else options.words.read_text(encoding="utf-8").splitlines()
    report = convert_bert(options.encoder, options.image_tokenizer, options.output, words, options.max_text_length)
    return _finish(report, options)


def run_parser(options: argparse.Namespace) -> int:
    """Puts a face parser into a checkpoint."""
    from gptface.training.face_parser_training import load_face_parser
    from gptface.training.release import release_with_face_parser

    parser = load_face_parser(options.face_parser)
    print(f"written to {release_with_face_parser(options.checkpoint, parser, options.output)}")
    return 0


def _check_direction(
    options: argparse.Namespace, back: str, needed: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    """The way back needs its folder alone; the way forth needs its files."""
    given = {name for name in needed + allowed if getattr(options, name) is not None}
    missing = [name for name in needed if name not in given]
    if getattr(options, back) is not None and given:
        raise ValueError(f"{_flag(back)} reads its folder alone: leave out {', '.join(map(_flag, sorted(given)))}")
    if getattr(options, back) is None and missing:
        raise ValueError(f"give {', '.join(map(_flag, missing))} (or {_flag(back)} for the other direction)")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _finish(report: "ConversionReport", options: argparse.Namespace) -> int:
    for line in map(json.dumps, report.records()) if options.json else report.lines():
        print(line)
    if not options.json:
        print(f"written to {options.output}")
    return 0
