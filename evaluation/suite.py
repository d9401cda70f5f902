"""
All of `gptface evaluate` in one go: `python -m gptface.evaluation.suite DATA_DIR OUT`.

Each kind that evaluation/cli.py lists is run on its data file; its figures become OUT/NAME.json, from which `gptface
card` makes the model card. A kind that fails is reported, and the others go on.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.processing.provenance import weights_hash

from .arms import CRITIC_ARMS
from .cli import KINDS, evaluate
from .reports import FURTHER_HEAD, write_report

#: Data file of a kind, in DATA_DIR; the default is the first.
DEFAULT_DATA = "validation/celeba178.parquet"
DATA = {"groups": "train/utkface128.parquet"}
#: Data file of a further head.
HEAD_DATA = "validation/{}.parquet"
#: Edits that are laid over the photo, whatever the guidance: measured so, and drawn by the model.
_LAID = ("smiling", "not_smiling", "eyeglasses", "no_eyeglasses", "blond_hair", "gray_hair", "beard", "hat", "young")
#: Kinds that are run more than once: name of the report → further options and their values, None of a flag. `--data`
#: is a file in DATA_DIR.
RUNS: dict[str, dict[str, dict[str, str | None]]] = {
    "expression": {
        f"expression_{name}": {"--data": f"validation/{name}.parquet"} for name in ("rafdb100", "ferplus48")
    },
    "unmask": {
        "unmask": {},
        "unmask_worn": {"--face-masks": None, "--data": "validation/celebamask256.parquet"},
    },
    "editing": {
        "editing_no_beard": {"--edit": "no_beard"},
        **{
            f"editing_{edit}{suffix}": {"--edit": edit, **further}
            for edit in _LAID
            for suffix, further in (("", {"--arms": "both"}), ("_drawn", {"--arms": "none,both", "--draw": None}))
        },
        **{
            f"realism_{edit}": {"--edit": edit, "--arms": ",".join(CRITIC_ARMS), "--draw": None}
            for edit in ("eyeglasses", "beard", "no_beard", "hat", "lipstick", "smiling")
        },
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all kinds; the exit status is 2 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m gptface.evaluation.suite", description=__doc__)
    parser.add_argument("data", metavar="DATA_DIR", type=Path, help="folder of the parquet files")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder of the reports")
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--limit", type=int, help="faces, for the kinds that know a limit")
    parser.add_argument("--lpips-weights", type=Path, help="safetensors file of LPIPS")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="run these reports only, such as editing_smiling")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    model = weights_hash(GPTFaceForPreTraining.from_pretrained(options.model or DEFAULT_CHECKPOINT))
    runs = {**RUNS, "head": further_heads(options)}
    names = [(name, kind, extra) for kind in kinds() for name, extra in runs.get(kind, {kind: {}}).items()]
    unknown = set(options.only or ()) - {name for name, *_ in names}
    if unknown:
        parser.error(f"--only: no report {sorted(unknown)[0]!r}; there are {', '.join(name for name, *_ in names)}")
    failed = 0
    for name, kind, extra in names:
        if options.only and name not in options.only:
            continue
        try:
            command, report = run(kind, extra, options)
        except (ValueError, OSError, ImportError, ArithmeticError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed += 1
            continue
        write_report(options.output / f"{name}.json", command, report, model)
        print(f"{name}: {command}")
    return 2 if failed else 0


def kinds() -> dict[str, argparse.ArgumentParser]:
    """The registered kinds and their parsers."""
    subparsers = argparse.ArgumentParser().add_subparsers()
    for kind in KINDS:
        kind.add_parser(subparsers)
    return dict(subparsers.choices)


def further_heads(options: argparse.Namespace) -> dict[str, dict[str, str | None]]:
    """
    Runs of the heads of the checkpoint that have no kind of their own and whose faces lie in
    `validation/HEAD.parquet`: name of the report → further options.
    """
    heads = GPTFaceConfig.from_pretrained(options.model or DEFAULT_CHECKPOINT).heads
    return {
        f"{FURTHER_HEAD}{name}": {"--head": name}
        for name in heads
        if name not in kinds() and (options.data / HEAD_DATA.format(name)).is_file()
    }


def run(kind: str, extra: Mapping[str, str | None], options: argparse.Namespace) -> tuple[str, dict]:
    """
    Runs one kind in this process.

    Returns:
        The command as others can call it (DATA_DIR and the like in place of the folders here), and its report.
    """
    further = dict(extra)
    default = HEAD_DATA.format(extra["--head"]) if kind == "head" else DATA.get(kind, DEFAULT_DATA)
    data = further.pop("--data", default)
    # (option, its value here, its value in the card)
    wanted: list[tuple[str, str | None, str | None]] = [("--data", str(options.data / data), f"DATA_DIR/{data}")]
    wanted += [(option, value, value) for option, value in further.items()]
    if options.model is not None:
        wanted.append(("--model", options.model, "MODEL"))
    if options.limit is not None:
        wanted.append(("--limit", str(options.limit), str(options.limit)))
    if options.lpips_weights is not None:
        wanted.append(("--lpips-weights", str(options.lpips_weights), "LPIPS_WEIGHTS"))
    parser = kinds()[kind]
    known = parser.format_usage().replace("[", " ").replace("]", " ").split()
    wanted = [entry for entry in wanted if entry[0] in known]
    parsed = parser.parse_args([word for option, value, _ in wanted for word in (option, value) if word is not None])
    parsed.kind = kind
    shown = [word for option, _, value in wanted for word in (option, value) if word is not None]
    return shlex.join(["gptface", "evaluate", kind, *shown, "--json"]), evaluate(parsed)


if __name__ == "__main__":
    raise SystemExit(main())
