"""A folder or a Hub name from anybody: opening it reads safetensors beside its configuration, and ends soon whatever
it asks for.
"""

import json
import os
import shutil
import time
from pathlib import Path

import hostile
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageToImage, pipeline

from gptface import (
    GPTFaceConfig,
    GPTFaceForGuidedGeneration,
    GPTFaceForPreTraining,
    GPTFaceImageProcessor,
    GPTFaceImageTokenizer,
    GPTFaceModel,
    GPTFaceParser,
    GPTFaceProcessor,
    GPTFaceTokenizer,
)
from gptface.conversion.model_folder import read_model_folder
from gptface.modeling_gptface.configuration_gptface import LARGEST

OPENERS = {
    "AutoModel": AutoModel.from_pretrained,
    "AutoModelForImageToImage": AutoModelForImageToImage.from_pretrained,
    "bare model": GPTFaceModel.from_pretrained,
    "task model": GPTFaceForGuidedGeneration.from_pretrained,
    "own configuration": lambda folder: GPTFaceForPreTraining.from_pretrained(
        folder, config=GPTFaceConfig.from_pretrained(folder), dtype="auto"
    ),
    "pipeline": lambda folder: pipeline("facial-expression", model=str(folder)),
    "conversion": read_model_folder,
}
# what a pipeline makes of an error in each of the classes that it tries
REFUSED = (ValueError, OSError)


@pytest.fixture
def trap(checkpoint):
    """(folder, what is there once a pickle was opened): each name below leads to a pickle that makes a folder."""
    sprung = checkpoint.parent / "sprung"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(sprung),)

    weights = load_file(checkpoint / "model.safetensors")
    for path in (checkpoint / "weights.bin", checkpoint.parent / "outside.bin"):
        torch.save({**weights, "weight": Trap()}, path)
    save_file(weights, checkpoint.parent / "outside.safetensors", metadata={"format": "pt"})
    return checkpoint, sprung


@pytest.mark.parametrize("with_dtype", [True, False])
@pytest.mark.parametrize(
    "name", ["weights.bin", "../outside.bin", "../outside.safetensors", "ABSOLUTE", "..\\outside.safetensors"]
)
@pytest.mark.parametrize("opener", OPENERS)
def test_an_index_leads_to_safetensors_in_the_folder_alone(trap, opener, name, with_dtype):
    """Any other file is a program of its author, or a file of the user's that the network then would hold."""
    folder, sprung = trap
    hostile.name_in_index(folder, str(folder.parent / "outside.safetensors") if name == "ABSOLUTE" else name)
    if not with_dtype:  # transformers then looks into the weights before it builds the network
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: content[key] for key in content if key != "dtype"}))
    with pytest.raises(REFUSED, match=r"must be \*\.safetensors files in the same folder"):
        OPENERS[opener](folder)
    assert not sprung.exists()


@pytest.mark.parametrize("index", ["other.safetensors.index.json", "sub/other.safetensors.index.json"])
def test_the_configuration_names_no_weights(trap, index):
    """`transformers_weights` leads to an index of any name."""
    folder, sprung = trap
    weights = (folder / "model.safetensors").read_bytes()
    hostile.name_in_index(folder, "weights.bin", index)
    (folder / "model.safetensors").write_bytes(weights)
    hostile.change_json(folder / "config.json", transformers_weights=index)
    assert AutoModel.from_pretrained(folder).config.to_dict().get("transformers_weights") is None
    assert not sprung.exists()


@pytest.mark.parametrize(
    "options", [{"use_safetensors": False}, {"use_safetensors": None}, {"gguf_file": "weights.bin"}]
)
def test_no_argument_opens_other_files(trap, options):
    """A copied line of code with `use_safetensors=False` would run what is in the file."""
    folder, sprung = trap
    (folder / "model.safetensors").unlink()
    (folder / "weights.bin").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors files alone"):
        GPTFaceModel.from_pretrained(folder, **options)
    assert not sprung.exists()


@pytest.mark.parametrize("part", ["image_tokenizer", "face_parser"])
def test_parts_open_no_other_files_either(tiny_checkpoint, tmp_path, part):
    model = GPTFaceModel.from_pretrained(tiny_checkpoint)
    getattr(model, part).save_pretrained(tmp_path)
    hostile.name_in_index(tmp_path, "weights.bin")
    part_class = {"image_tokenizer": GPTFaceImageTokenizer, "face_parser": GPTFaceParser}[part]
    for opener in (part_class.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match="same folder"):
            opener(tmp_path)


@pytest.mark.parametrize("changes", hostile.CONFIGS.values(), ids=hostile.CONFIGS)
def test_a_configuration_is_bounded_before_anything_is_built(checkpoint, changes):
    """Hours, or all memory, for a few bytes of JSON."""
    hostile.change_json(checkpoint / "config.json", **changes)
    start = time.process_time()
    with pytest.raises(REFUSED, match="the most"):
        GPTFaceForGuidedGeneration.from_pretrained(checkpoint)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("changes", hostile.IMPOSSIBLE.values(), ids=hostile.IMPOSSIBLE)
def test_a_configuration_of_no_network_is_refused_as_such(tiny_checkpoint, changes):
    """Errors from the depths of a tensor library are no errors that a web service catches, nor say what is wrong."""
    content = json.loads((tiny_checkpoint / "config.json").read_text())
    with pytest.raises(ValueError) as caught:
        GPTFaceConfig.from_dict(hostile.merged(content, changes))
    assert 20 < len(str(caught.value)) < 500


def test_weights_of_a_smaller_network_do_not_make_a_large_one(checkpoint):
    """Within the bounds a network may be large, but its weights come from the files, not from the user's memory."""
    hostile.change_json(checkpoint / "config.json", intermediate_size=2**16, num_hidden_layers=64)
    with pytest.raises(ValueError, match="which its weights are not"):
        GPTFaceForGuidedGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["size", "crop_size"])
def test_the_size_of_pictures_is_bounded(checkpoint, name):
    """A terabyte of pixels for one face."""
    size = {"height": 10**6, "width": 10**6}
    values = json.loads((checkpoint / "processor_config.json").read_text())
    hostile.change_json(
        checkpoint / "processor_config.json", image_processor={**values["image_processor"], name: size}
    )
    for opener in (GPTFaceImageProcessor.from_pretrained, GPTFaceProcessor.from_pretrained):
        with pytest.raises(ValueError, match="2048 is the most"):
            opener(checkpoint)


@pytest.mark.parametrize("change", [hostile.nest_replacements, hostile.backtrack])
def test_a_tokenizer_is_of_the_projects_kind(checkpoint, change):
    """Its parts can be programs, which need not end."""
    change(checkpoint / "tokenizer.json")
    for opener in (GPTFaceTokenizer.from_pretrained, GPTFaceProcessor.from_pretrained):
        with pytest.raises(ValueError, match=r"tokenizer\.json has a (normalizer|pre_tokenizer) of the kind"):
            opener(checkpoint)


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}', '{"added_tokens": []}', "[" * 100_000])
def test_a_damaged_tokenizer_is_named(checkpoint, content):
    (checkpoint / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"damaged.*(is no tokenizer|is damaged).*fetch it again"):
        GPTFaceTokenizer.from_pretrained(checkpoint)


fields = st.sampled_from(sorted(LARGEST))
numbers = st.one_of(st.integers(-3, 10**12), st.lists(st.integers(-3, 10**6), max_size=40), st.none(), st.booleans())


@settings(
    max_examples=int(os.environ.get("GPTFACE_EXAMPLES", "30")),
    deadline=20_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.dictionaries(fields, numbers, min_size=1, max_size=3),
    nested=st.dictionaries(fields, numbers, max_size=2),
    part=st.sampled_from(["image_tokenizer_config", "face_parser_config", "image_reader"]),
)
def test_any_sizes_end_soon(tiny_checkpoint, tmp_path_factory, changes, nested, part):
    """
    Whatever numbers stand in a configuration: it opens, or is refused by an error that is documented; never a hang or
    all memory.
    """
    folder = tmp_path_factory.mktemp("sizes")
    for file in Path(tiny_checkpoint).iterdir():
        os.link(file, folder / file.name)
    content = json.loads((tiny_checkpoint / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**content, **changes, part: {**(content[part] or {}), **nested}}))
    try:
        GPTFaceForGuidedGeneration.from_pretrained(folder)
    except REFUSED as error:
        assert str(error)
    finally:
        shutil.rmtree(folder)
