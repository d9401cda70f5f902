"""
Everything that an hour's work of one GPU gives the embedded checkpoint, in some minutes: the plan of the image
tokenizer, the face parser, codes of slightly changed copies of all faces, pre-training at both scales, the refiner.

    python lab/gpu_run.py smoke CARRIED WORK OUT
    python lab/gpu_run.py all CARRIED WORK OUT --minutes 8.5

`smoke` runs ten steps of everything, compiled, saved and reopened, and keeps `CARRIED` for `all`.

`CARRIED` is what `lab/gpu_kit.py` made ready: packs of faces (see `lab/pack_faces.py`), the checkpoint to start from,
LPIPS weights. What is worth keeping lies in `OUT` as few files, weights in half precision, cut into pieces.
"""

import argparse
import functools
import io
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

import gptface
from gptface.metrics.lpips_distance import load_lpips
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

logger = logging.getLogger("gpu_run")
ROOT = Path(__file__).resolve().parent.parent
START = ROOT / "gptface" / "assets"  # the checkpoint before
PIECE = 14_000_000  # bytes of a piece of a file in OUT
COPIES = 4  # of every face, the first as it is
BATCH_ENCODED = 512
#: A source's faces count so often in pre-training: sharp ones more.
WEIGHTS = {"celeba178": 3.0, "portraits256": 3.0, "celebamask256": 3.0, "celeba89": 1.0, "utkface128": 1.0}
OTHER_WEIGHT = 0.7


def decode_image(data: bytes, size: int) -> np.ndarray:
    """Encoded picture → RGB [size, size, 3] uint8."""
    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
        return np.asarray(image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC))


def decode_packs(carried: list[Path], work: Path, limit: int | None) -> None:
    """Packs → `faces128.npy`, `faces256.npy`, `masks256.npy` and tables of their other columns in `work`."""
    with Pool() as pool:
        for size in (128, 256):
            files = sorted(path for folder in carried for path in folder.glob(f"pack{size}*.parquet"))
            table = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
            table = table.iloc[np.linspace(0, len(table) - 1, min(limit or len(table), len(table))).astype(int)]
            images = pool.map(functools.partial(decode_image, size=size), table.pop("image"), chunksize=64)
            np.save(work / f"faces{size}.npy", np.stack(images))
            if size == 256:
                table = table.drop(columns="mask")
            else:
                covered = np.stack([np.unpackbits(np.frombuffer(bits, np.uint8)) for bits in table.pop("covered")])
                np.save(work / "covered128.npy", covered.astype(bool))
            table.to_parquet(work / f"table{size}.parquet")
            logger.info("%d faces of %d pixels from %d packs", len(images), size, len(files))


def load(work: Path, name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(work / f"{name}.npy"))


def train_plan(carried: Path, work: Path, device: str, **how) -> None:
    """
    The image tokenizer with its plan, in `work/tokenizer`; goes on from the one that was carried, where there is one.
    """
    from gptface.training.plan_training import PlanTrainingSettings, train_plan, with_plan

    start = carried / "tokenizer"
    if start.is_dir():
        tokenizer = GPTFaceImageTokenizer.from_pretrained(start)
        how.setdefault("latent_share", 0.0)
    else:
        tokenizer = with_plan(gptface.GPTFaceModel.from_pretrained(START).image_tokenizer, [8, 8, 8, 8])
    settings = PlanTrainingSettings(**how)
    perceptual = load_lpips(carried / "lpips_alex.safetensors")
    train_plan(tokenizer, load(work, "faces128"), load(work, "covered128"), settings, perceptual, device)
    tokenizer.cpu().save_pretrained(work / "tokenizer")
    tokenizer.half().save_pretrained(work / "tokenizer_half")


def train_parser(carried: Path, work: Path, out: Path, device: str, **how) -> None:
    """The face parser, by the faces with masks and those without."""
    from gptface.data.face_parsing_data import read_parsed_faces
    from gptface.training.face_parser_training import ParserTrainingArguments, train_face_parser

    faces = read_parsed_faces(sorted(carried.glob("pack256*.parquet")))
    tensors = (tensor.to(device) for tensor in (faces.images, faces.masks))
    arguments = ParserTrainingArguments(**how)
    unlabelled, priors = faces.unlabelled.to(device), faces.priors.to(device)
    parser = train_face_parser(*tensors, arguments, unlabelled, priors)
    parser.cpu().half().save_pretrained(work / "parser")
    pack(work / "parser", out, "parser")


def train_refiner(carried: Path, work: Path, out: Path, device: str, **how) -> None:
    """The refiner behind the decoder, for edits by codes and by plans."""
    from gptface.training.refiner_training import RefinerSettings, save_refiner, train_refiner

    tokenizer = GPTFaceImageTokenizer.from_pretrained(work / "tokenizer").to(device).eval()
    table = pd.read_parquet(work / "table128.parquet")
    whole = load(work, "covered128").all(1).numpy() & (table["source"] != "celeba89").to_numpy()
    settings = RefinerSettings(**how.pop("settings", {}))
    refiner = train_refiner(
        tokenizer,
        load(work, "faces256"),
        load(work, "faces128")[torch.from_numpy(whole)],
        device=device,
        lpips=load_lpips(carried / "lpips_alex.safetensors"),
        decode_plan=lambda latents: tokenizer.decode_plan(tokenizer.encode_plan(latents=latents)),
        settings=settings,
        log=lambda values: logger.info("refiner %s", {name: round(value, 4) for name, value in values.items()}),
        **how,
    )
    save_refiner(refiner.cpu(), work / "refiner")
    pack(work / "refiner", out, "refiner")


@torch.inference_mode()
def encode_all(carried: Path, work: Path, device: str, copies: int) -> None:
    """Codes and plan codes of all faces and of changed copies, with labels, as `gptface encode` writes them."""
    import pyarrow as pa

    from gptface.data.batch_augmentation import augment_faces
    from gptface.data.encode import FINGERPRINT_KEY, PLAN_FINGERPRINT_KEY, write_part

    from .changed_copies import SLIGHT_CHANGES

    tokenizer = GPTFaceImageTokenizer.from_pretrained(work / "tokenizer").to(device).eval()
    faces, covered = load(work, "faces128"), load(work, "covered128")
    table = label_faces(carried, work, tokenizer, faces, covered, device)
    metadata = {
        FINGERPRINT_KEY: tokenizer.fingerprint().encode(),
        PLAN_FINGERPRINT_KEY: tokenizer.plan_fingerprint().encode(),
    }
    generator = torch.Generator(device).manual_seed(0)
    for copy in range(copies):
        columns: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(faces), BATCH_ENCODED):
            rows = slice(start, start + BATCH_ENCODED)
            some, shown = faces[rows].to(device), covered[rows].to(device)
            if copy:
                pixels, seen = augment_faces(some, shown, SLIGHT_CHANGES, generator)
            else:
                pixels, seen = some.movedim(-1, 1).float() / 127.5 - 1, spread(shown)
            for name, version, visible in (
                ("codes", pixels, seen),
                ("codes_flipped", pixels.flip(3), seen.flip(3)),
            ):
                latents = tokenizer.latents(version)
                codes = tokenizer.quantizer(latents)[1].flatten(1)
                plan = tokenizer.encode_plan(latents=latents)
                for key, values, factor in ((name, codes, 8), (f"plan_{name}", plan, 16)):
                    whole = -torch.nn.functional.max_pool2d(-visible.float(), factor).flatten(1) > 0.5
                    columns.setdefault(key, []).append(
                        values.masked_fill(~whole, 65535).cpu().numpy().astype(np.uint16)
                    )
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        for source, rows in table.groupby("source").indices.items():
            part = pa.Table.from_pandas(table.iloc[rows].drop(columns="source"), preserve_index=False)
            for name, values in joined.items():
                flat = pa.array(values[rows].reshape(-1))
                part = part.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
            folder = work / "codes" / str(source) / str(copy)
            folder.mkdir(parents=True, exist_ok=True)
            write_part(part.replace_schema_metadata(metadata), folder / "part-00000.parquet")
        logger.info("copy %d of %d faces encoded", copy, len(faces))


def spread(covered: torch.Tensor, size: int = 128) -> torch.Tensor:
    """Cells that are covered [B, N] → pixels [B, 1, size, size] bool."""
    side = round(covered.shape[1] ** 0.5)
    return covered.view(-1, 1, side, side).repeat_interleave(size // side, 2).repeat_interleave(size // side, 3)


def label_faces(carried, work, tokenizer, faces, covered, device) -> pd.DataFrame:
    """
    The table of the faces; what labels do not say, the attribute head of the checkpoint to start from does, where it
    is sure.
    """
    from gptface.data.confident_labels import confident_labels
    from gptface.data.encode import LEAST_COLOUR

    table = pd.read_parquet(work / "table128.parquet")
    model = gptface.GPTFaceForFaceAttributeClassification.from_pretrained(START).to(device).eval()
    names = model.config.heads["attributes"]["labels"]
    found = []
    for start in range(0, len(faces), BATCH_ENCODED):
        pixels = faces[start : start + BATCH_ENCODED].to(device).movedim(-1, 1).float() / 127.5 - 1
        logits = [model(pixel_values=version).logits for version in (pixels, pixels.flip(3))]
        found.append(torch.stack(logits).mean(0).sigmoid().cpu())
    rows = confident_labels(torch.cat(found).numpy(), names)
    for name in names:
        guessed = pd.Series([row.get(name) for row in rows], index=table.index, dtype="Int8")
        known = table[name].astype("Int8") if name in table else pd.Series(pd.NA, table.index, dtype="Int8")
        labelled = table["source"].str.startswith("celeba") & ~table["source"].str.startswith("celebamask")
        # dark glasses stay unknown: the label was taken away
        table[name] = known.where(known.notna() | labelled, guessed)
    pixels = faces.float()
    table["grey"] = ((pixels.amax(3) - pixels.amin(3)).mean((1, 2)) < LEAST_COLOUR).numpy()
    for name in ("sunglasses", "age"):
        table[name] = table[name].astype("Int16")
    return table


def make_start(carried: Path, work: Path, layers: int) -> None:
    """The checkpoint to start from, deeper and with a plan, in `work/start`: it predicts what it did."""
    from .grown_model import grow_model

    tokenizer = GPTFaceImageTokenizer.from_pretrained(work / "tokenizer")
    model = grow_model(gptface.GPTFaceForPreTraining.from_pretrained(START), layers, tokenizer)
    model.save_pretrained(work / "start")
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        if (START / name).exists():
            shutil.copy(START / name, work / "start" / name)


def run_recipe(carried: Path, work: Path, minutes: float, **changes) -> None:
    """Pre-training by the recipe of the repository, on the codes in `work`."""
    from gptface.training.pretraining import PreTrainingConfig, pretrain

    recipe = yaml.safe_load((ROOT / "training/recipes/embedded.yaml").read_text())
    folders = sorted(path.parent for path in (work / "codes").glob("*/*/part-*.parquet"))
    train = {}
    for folder in folders:
        source = folder.parent.name
        weight = next((w for name, w in WEIGHTS.items() if source.startswith(name)), OTHER_WEIGHT)
        train[str(folder)] = weight
    recipe |= {"output_dir": str(work / "run"), "train": train, "start_from": str(work / "start"), "evaluation": []}
    recipe["minutes"] = minutes
    arguments = recipe["arguments"] | changes
    config = PreTrainingConfig(**{**recipe, "arguments": arguments})
    pretrain(config)


def pack(folder: Path, out: Path, name: str) -> None:
    """A model's folder as one tar in pieces."""
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.glob("*")):
            archive.add(path, path.name)
    data = buffer.getvalue()
    for old in out.glob(f"{name}.tar.*"):
        old.unlink()
    for number, start in enumerate(range(0, len(data), PIECE)):
        (out / f"{name}.tar.{number}").write_bytes(data[start : start + PIECE])


def export_model(folder: Path, work: Path, out: Path) -> None:
    """A trained model in half precision, without what is in the repository anyway, into `out`."""
    target = work / "half"
    shutil.rmtree(target, ignore_errors=True)
    model = gptface.GPTFaceForPreTraining.from_pretrained(folder)
    model.half().save_pretrained(target)
    for path in folder.glob("*token*"):
        shutil.copy(path, target / path.name)
    pack(target, out, "model")


def export_while_running(work: Path, out: Path, stop: threading.Event) -> None:
    """Every whole checkpoint of a run that goes on goes into `out`: whatever happens later, something is left."""
    exported = None
    while not stop.wait(5):
        found = sorted((work / "run").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
        if found and found[-1] != exported:
            exported = found[-1]
            try:
                export_model(exported.parent, work, out)
                logger.info("%s is in %s", exported.parent.name, out)
            except Exception:  # whatever it is, the run goes on: the next checkpoint is tried
                logger.exception("a checkpoint could not be exported")


def background(stage: str, options: argparse.Namespace, **how) -> subprocess.Popen:
    """A stage in a process of its own, which shares the GPU."""
    command = [sys.executable, __file__, stage, options.carried, options.work, options.out]
    command += ["--device", options.device, "--how", json.dumps(how)]
    return subprocess.Popen(list(map(str, command)))


def finish(process: subprocess.Popen, name: str) -> None:
    if process.wait():
        logger.error("%s ended with %d", name, process.returncode)


def everything(options: argparse.Namespace) -> None:
    """All stages; what takes long runs side by side."""
    started = time.monotonic()

    def left() -> float:
        return options.minutes - (time.monotonic() - started) / 60

    def say(what: str) -> None:
        logger.info("%s: %.0f s", what, time.monotonic() - started)

    carried, work, out = options.carried, options.work, options.out
    tiny = options.command == "smoke"
    how = options.how
    decode_packs([carried, *options.more], work, how.get("limit"))
    say("decoded")
    parser = background("parser", options, **how["parser"])
    train_plan(carried, work, options.device, **how["plan"])
    pack(work / "tokenizer_half", out, "tokenizer")
    say("plan")
    encode_all(carried, work, options.device, how.get("copies", COPIES))
    say("codes")
    refiner = background("refiner", options, **how["refiner"])
    make_start(carried, work, how.get("layers", 8))
    stop = threading.Event()
    exporter = threading.Thread(target=export_while_running, args=(work, out, stop), daemon=True)
    exporter.start()
    reserve = 0.1 if tiny else 0.4
    run_recipe(carried, work, how.get("run_minutes", max(0.2, left() - reserve)), **how.get("arguments", {}))
    say("pre-training")
    stop.set()
    exporter.join()
    export_model(work / "run" / "final", work, out)
    say("exported")
    finish(refiner, "refiner")
    finish(parser, "parser")
    say("all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["smoke", "all", "parser", "refiner"])
    parser.add_argument("carried", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders of packs")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--how", type=json.loads, default={}, help="JSON: options of the stages")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.command == "parser":
        train_parser(options.carried, options.work, options.out, options.device, **options.how)
    elif options.command == "refiner":
        train_refiner(options.carried, options.work, options.out, options.device, **options.how)
    else:
        everything(options)


if __name__ == "__main__":
    main()
