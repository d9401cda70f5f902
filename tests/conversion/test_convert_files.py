"""Files: nothing foreign is run, nothing half written, no checkpoint has to fit into memory twice; and the command."""

import argparse
import collections
import json
import weakref
from pathlib import Path

import pytest
import torch
from original_stack import Variant, write_checkpoint
from safetensors.torch import load_file, save_file

from gptface.commands.convert import add_parser
from gptface.conversion.checkpoint import read_model_folder, read_state_dict, write_safetensors
from gptface.conversion.report import ConversionError
from gptface.processing.whole_files import whole_folder


class Callback:
    """Stands for what a training framework pickles beside the tensors."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds a list, not a state dict"),
        ({}, "it is empty"),
        ({"weight": torch.zeros(2), "epoch": 3, 5: torch.zeros(1)}, r"'epoch' is a int\n  5 is a Tensor"),
        ({"state_dict": {"weight": torch.zeros(2)}, "callbacks": {"c": Callback()}}, r"strip it once:\n  python -c"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=message):
        read_state_dict(tmp_path / "model.ckpt")


def test_the_advice_for_training_checkpoints_works(tmp_path):
    state = {"weight": torch.arange(3.0)}
    torch.save({"state_dict": state, "callbacks": Callback()}, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError) as error:
        read_state_dict(tmp_path / "model.ckpt")
    advice = next(line for line in str(error.value).splitlines() if "python -c" in line)
    exec(advice.split('"')[1])
    assert torch.equal(read_state_dict(tmp_path / "model.stripped.ckpt")["weight"], state["weight"])


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ConversionError, match=name):
        read_state_dict(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "missing.bin")


def test_old_torch_format_and_shards_are_read(tmp_path):
    state = collections.OrderedDict(weight=torch.arange(4.0))
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.bin")["weight"], state["weight"])
    names = {name: f"{name}.safetensors" for name in ("a", "b")}
    for name, file in names.items():
        save_file({name: torch.ones(2)}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert read_model_folder(tmp_path).keys() == names.keys()


def test_tensors_are_mapped_and_written_one_by_one(tmp_path):
    """A checkpoint larger than memory would do: what is read stays in the file, what is written is let go."""
    shapes = {f"layer.{index}": (3, index) for index in range(4)}
    alive: list[weakref.ref] = []

    def tensors():
        for name, shape in shapes.items():
            assert not any(reference() is not None for reference in alive[:-1])
            tensor = torch.full(shape, float(len(alive)), dtype=torch.float16)
            alive.append(weakref.ref(tensor))
            yield name, tensor

    write_safetensors(tmp_path / "model.safetensors", shapes, tensors())
    for index, (name, tensor) in enumerate(load_file(tmp_path / "model.safetensors").items()):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, torch.full(shapes[name], float(index)))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), whole_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise KeyError
    assert not list(tmp_path.iterdir())
    with whole_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "config.json"]
    with pytest.raises(FileExistsError, match="new or an empty"), whole_folder(tmp_path / "model"):
        pass


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["convert", *map(str, arguments)])
    return options.run(options)


def flags(files: dict[str, Path]) -> list[str | Path]:
    return [part for name, path in files.items() for part in ("--" + name.replace("_", "-"), path)]


def test_command_converts_both_ways_and_prints_the_mapping(tmp_path, capsys):
    files = write_checkpoint(tmp_path, Variant())
    assert run("original", *flags(files), "--max-text-length", "7", tmp_path / "model") == 0
    printed = capsys.readouterr().out
    assert "target.sp.linear_2.bias [2] → match_head.output.bias [2]" in printed
    assert printed.splitlines()[-3:-1] == ["skipped (0):", "initialised (0):"]
    assert run("original", "--reverse", tmp_path / "model", tmp_path / "back") == 0
    assert run("vqgan", "--to-diffusers", tmp_path / "model", tmp_path / "vqmodel") == 0
    capsys.readouterr()
    image = {name: files[name] for name in ("vqgan", "vqgan_config")}
    assert run("vqgan", *flags(image), "--json", tmp_path / "tokenizer") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"kind": "mapped", "sources": {"quant_conv.bias": [4]}, "targets": {"quantizer.down.bias": [4]}} in records


def test_command_says_which_files_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"give --vqgan-config \(or --to-diffusers"):
        run("vqgan", "--vqgan", tmp_path / "vqgan.ckpt", tmp_path / "out")
    with pytest.raises(ValueError, match="--reverse reads its folder alone: leave out --config"):
        run("original", "--reverse", tmp_path, "--config", tmp_path / "c.json", tmp_path / "out")
