"""A checkpoint → a repository for the Hub that opens with transformers alone."""

import shutil
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.whole_files import whole_folder

from .checkpoint import read_json, weight_files
from .folder_code import (
    CONFIG,
    folder_code,
    model_references,
    published_processor_config,
    published_tokenizer_config,
    write_json,
)
from .model_folder import read_config
from .published_files import check_weights, refuse_links
from .report import ConversionError

PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")
#: Top of a checkout, where licences and the card of the embedded checkpoint stand.
CHECKOUT = Path(DEFAULT_CHECKPOINT).resolve().parent.parent


def export_hub(
    source: str | Path, output: str | Path, card: str | Path | None = None, onnx: bool = False
) -> list[str]:
    """
    Writes a repository that `pipeline(task, model=…, trust_remote_code=True)` and the Auto classes open without this
    package: the checkpoint in the folder `source`, its processor, the code of the package flattened, licences, and the
    model card as README.md.

    Args:
        card: the model card; without it README.md or model_card.md of `source`, else a short one.
        onnx: also write the folder onnx/ in it, see [`export_onnx`].

    Returns:
        The names of the files in `output`, sorted.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: where `source` holds no complete GPTFace checkpoint; lists what is missing, is a link, or is
            not of the configuration. Or where an ONNX file gives other numbers than torch.
        ImportError: where `onnx` needs packages that are missing.
    """
    source = Path(source)
    weights = checked_weights(source)
    config = read_config(source)
    words = len(GPTFaceProcessor.from_pretrained(source).tokenizer)
    if words > config.vocab_size:
        raise ConversionError(f"the tokenizer in {source} has {words} words, the network {config.vocab_size}", [])
    readme = _card_text(source, card)
    with whole_folder(output) as folder:
        copy_checkpoint(source, weights, folder)
        for name, text in folder_code().items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, text in license_files():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")
        if onnx:
            from .onnx_export import export_onnx

            export_onnx(source, folder / "onnx")
    output = Path(output)
    return sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())


def checked_weights(source: Path) -> list[str]:
    """
    Names of the weight files of a checkpoint that may be given away.

    Raises:
        OSError: a file cannot be read.
        ConversionError: no complete GPTFace checkpoint with its processor; lists what is missing, is a link, or is not
            of the configuration.
    """
    read_config(source)
    needed = (*weight_files(source), *PROCESSOR_FILES)
    if missing := [name for name in needed if not (source / name).is_file()]:
        raise ConversionError(f"{source} is not complete: save model and processor into it; missing", missing)
    refuse_links(source, (CONFIG, *needed))
    return check_weights(source)


def copy_checkpoint(source: Path, weights: Iterable[str], folder: Path) -> None:
    """Puts a checkpoint into a folder to be published: what it tells is of the network, not of the machine."""
    for name in (*weights, "tokenizer.json"):
        shutil.copyfile(source / name, folder / name)
    described = GPTFaceConfig.description(read_json(source / CONFIG))
    write_json(folder / CONFIG, {**described, **model_references()})
    for name, published in (
        ("tokenizer_config.json", published_tokenizer_config),
        ("processor_config.json", published_processor_config),
    ):
        write_json(folder / name, published(read_json(source / name)))


def license_files() -> Iterator[tuple[str, str]]:
    """(name, text) of LICENSE and of the notices in LICENSES/, from a checkout or from the installed distribution."""
    if (CHECKOUT / "LICENSES").is_dir():
        for file in (CHECKOUT / "LICENSE", *sorted((CHECKOUT / "LICENSES").iterdir())):
            yield file.relative_to(CHECKOUT).as_posix(), file.read_text(encoding="utf-8")
        return
    for entry in metadata.files("gptface") or ():
        folder, _, name = entry.as_posix().partition("/licenses/")
        if folder.endswith(".dist-info") and name:
            yield name, entry.read_text(encoding="utf-8")


def _card_text(source: Path, card: str | Path | None) -> str:
    if card is not None:
        return Path(card).read_text(encoding="utf-8")
    for folder in (source, CHECKOUT) if source.resolve() == Path(DEFAULT_CHECKPOINT).resolve() else (source,):
        for name in ("model_card.md", "README.md"):
            if (folder / name).is_file():
                refuse_links(folder, (name,))
                return (folder / name).read_text(encoding="utf-8")
    from gptface.evaluation.card import short_card

    return short_card()
