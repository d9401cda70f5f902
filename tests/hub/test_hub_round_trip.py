"""What is pushed must come back from the Hub the same, and nothing half-uploaded may be seen by anybody."""

import json
import os
import re
import shutil

import pytest
import torch
from huggingface_hub import HfApi
from local_hub import LocalHub
from processes import run_python
from safetensors.torch import load_file, save_file

from gptface import GPTFaceModel
from gptface.cli import main
from gptface.conversion.hub_push import push_folder
from gptface.conversion.report import ConversionError

PUSH = """
from gptface import GPTFaceForFacialExpression, GPTFaceForPreTraining, GPTFaceProcessor
from gptface.cli import main
from transformers import Trainer, TrainingArguments

assert main(["push", "EXPORTED", "user/faces", "--json"]) == 0
assert main(["push", "SECOND", "user/faces", "--revision", "v2", "--json"]) == 0
assert main(["push", "EXPORTED", "user/secret", "--private", "--json"]) == 0
model, processor = GPTFaceForPreTraining.from_pretrained("CHECKPOINT"), GPTFaceProcessor.from_pretrained("CHECKPOINT")
model.push_to_hub("user/shards", max_shard_size="40KB")
processor.push_to_hub("user/shards")

tuned = GPTFaceForFacialExpression.from_pretrained("CHECKPOINT")
side = tuned.config.image_tokenizer_config.image_size
torch.manual_seed(0)
faces = [{"pixel_values": torch.rand(3, side, side) * 2 - 1, "labels": index} for index in range(4)]
arguments = TrainingArguments(
    "tuned", push_to_hub=True, hub_model_id="user/tuned", hub_strategy="end", max_steps=2, report_to=[], use_cpu=True,
    per_device_train_batch_size=2, learning_rate=0.01, label_names=["labels"], remove_unused_columns=False,
)
trainer = Trainer(tuned, arguments, train_dataset=faces, processing_class=processor)
trainer.train()
trainer.push_to_hub()
report(
    weights={name: float(tensor.double().sum()) for name, tensor in model.state_dict().items()},
    tuned=float(tuned.classifiers["expression"].state_dict().popitem()[1].double().sum()),
)
"""

PULL = """
import os
from gptface import GPTFaceForFacialExpression, GPTFaceForPreTraining, GPTFaceProcessor
from PIL import Image
from transformers import AutoConfig, pipeline

photo = Image.open("PHOTO")
model = GPTFaceForPreTraining.from_pretrained("user/shards")
tuned = GPTFaceForFacialExpression.from_pretrained("user/tuned")
refused = []
for token in (False, "hf_somebody_else"):
    try:
        GPTFaceForPreTraining.from_pretrained("user/secret", token=token)
    except OSError as error:
        refused.append(str(error))
report(
    weights={name: float(tensor.double().sum()) for name, tensor in model.state_dict().items()},
    tokens=GPTFaceProcessor.from_pretrained("user/shards").tokenizer("smiling")["input_ids"],
    tuned=float(tuned.classifiers["expression"].state_dict().popitem()[1].double().sum()),
    tuned_scores=len(pipeline("facial-expression", model="user/tuned")(photo, aligned=True)),
    expression=pipeline("facial-expression", model="user/faces")(photo, aligned=True),
    edited=pipeline("guided-face-editing", model="user/faces")(
        photo, prompt="smiling", seed=0, aligned=True, num_inference_steps=1
    )[0]["image"].info["gptface"],
    revisions=[AutoConfig.from_pretrained("user/faces", revision=name).initializer_range for name in ("main", "v2")],
    refused=refused,
    accepted=type(GPTFaceForPreTraining.from_pretrained("user/secret", token="TOKEN")).__name__,
)
"""

CLEAN = """
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

photo = Image.open("PHOTO")
trust = {"trust_remote_code": True}
edit = pipeline("guided-face-editing", model="user/faces", revision="v2", **trust)
report(
    expression=pipeline("facial-expression", model="user/faces", **trust)(photo, aligned=True),
    edited=edit(photo, prompt="smiling", seed=0, aligned=True, num_inference_steps=1)[0]["image"].info["gptface"],
    changed=edit.model.config.initializer_range,
    private=type(AutoModel.from_pretrained("user/secret", token="TOKEN", **trust)).__name__,
    processor=type(AutoProcessor.from_pretrained("user/secret", token="TOKEN", **trust)).__name__,
)
"""


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as server:
        yield server


@pytest.fixture(scope="module")
def run(hub, exported, tiny_checkpoint, face_picture, tmp_path_factory):
    """Runs code against the local Hub, in an own process and with an empty cache."""
    shared = tmp_path_factory.mktemp("shared")
    face_picture.save(shared / "face.png")
    shutil.copytree(exported, shared / "second")
    config = json.loads((shared / "second" / "config.json").read_text())
    (shared / "second" / "config.json").write_text(json.dumps({**config, "initializer_range": 0.25}))
    names = {"EXPORTED": exported, "CHECKPOINT": tiny_checkpoint, "SECOND": shared / "second"}
    names |= {"PHOTO": shared / "face.png", "TOKEN": hub.token}

    def run(code: str, package: bool, token: str | None = None) -> dict:
        for name, value in names.items():
            code = code.replace(name, str(value))
        environment = {"HF_ENDPOINT": hub.url} | ({"HF_TOKEN": token} if token else {})
        return run_python(code, tmp_path_factory.mktemp("process"), package, environment)

    return run


@pytest.fixture(scope="module")
def pushed(run, hub) -> dict:
    return run(PUSH, True, hub.token)


@pytest.fixture(scope="module")
def pulled(run, pushed) -> dict:
    return run(PULL, True)


@pytest.fixture(scope="module")
def pulled_without_package(run, pushed) -> dict:
    return run(CLEAN, False)


def test_weights_come_back_from_many_shards(hub, pushed, pulled):
    assert len([path for path in hub.files("user/shards") if path.endswith(".safetensors")]) > 2
    assert pulled["weights"] == pytest.approx(pushed["weights"])


@pytest.mark.report("Saved folders need the package and name folders of a machine; the card's task is gone")
def test_what_is_pushed_has_the_code(hub, pushed):
    """push_to_hub of models, processors and Trainer uploads the code that opens them, and names no folder."""
    for name in ("user/shards", "user/tuned"):
        files = hub.files(name)
        assert {"gptface_hub.py", "heads_gptface.py"} <= set(files)
        config = json.loads(files["config.json"])
        assert config["auto_map"]["AutoConfig"] == "gptface_hub.GPTFaceConfig" and "_name_or_path" not in config


def test_the_processor_comes_back(pulled, tiny_tokenizer):
    assert pulled["tokens"] == tiny_tokenizer("smiling")["input_ids"]


def test_a_fine_tuned_head_comes_back_from_the_trainer(hub, pushed, pulled):
    assert pulled["tuned"] == pytest.approx(pushed["tuned"]) and pulled["tuned_scores"] == 7
    assert {"README.md", "config.json", "tokenizer.json", "processor_config.json"} <= set(hub.files("user/tuned"))


def test_revisions_are_told_apart(hub, pulled, pulled_without_package):
    assert pulled["revisions"] == [0.02, 0.25] and pulled_without_package["changed"] == 0.25
    assert hub.files("user/faces") != hub.files("user/faces", "v2")


def test_a_private_repository_opens_with_its_token_alone(hub, pulled, pulled_without_package):
    assert hub.repositories["user/secret"].private and not hub.repositories["user/faces"].private
    assert len(pulled["refused"]) == 2 and all("user/secret" in message for message in pulled["refused"])
    assert pulled["accepted"] == "GPTFaceForPreTraining"
    assert (
        pulled_without_package["private"] == "GPTFaceModel"
        and pulled_without_package["processor"] == "GPTFaceProcessor"
    )


def test_pipelines_by_name_agree_with_and_without_the_package(pulled, pulled_without_package):
    assert [entry["label"] for entry in pulled["expression"]] == [
        e["label"] for e in pulled_without_package["expression"]
    ]
    # the same weights have the same revision, and a Hub name is no secret
    assert pulled["edited"]["model"] == pulled_without_package["edited"]["model"] == "user/faces"
    assert pulled["edited"]["revision"] == pulled_without_package["edited"]["revision"]


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The Hub of these tests is on this machine: it is there even where the environment says to stay offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def impatient(monkeypatch):
    """huggingface_hub waits for seconds between its attempts."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_a_broken_upload_shows_nothing_and_a_second_one_completes_it(hub, exported, impatient, monkeypatch):
    api = HfApi(hub.url, token=hub.token)
    monkeypatch.setattr(hub, "blobs", {})  # as if nobody had uploaded these weights before
    monkeypatch.setattr(hub, "cut_uploads_after", 1000)
    with pytest.raises(ConnectionError, match="push again"):
        push_folder(exported, "user/broken", api=api)
    assert hub.files("user/broken") == {}
    monkeypatch.setattr(hub, "cut_uploads_after", None)
    commit = push_folder(exported, "user/broken", api=api).commit
    names = {file.relative_to(exported).as_posix() for file in exported.rglob("*") if file.is_file()}
    assert set(hub.files("user/broken")) == names and hub.repositories["user/broken"].resolve("main") == commit


def test_an_update_that_breaks_off_leaves_the_old_version(hub, exported, impatient, monkeypatch, tmp_path):
    api = HfApi(hub.url, token=hub.token)
    before = push_folder(exported, "user/updated", api=api).commit
    shutil.copytree(exported, tmp_path / "new")
    weights = bytearray((exported / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "new" / "model.safetensors").write_bytes(weights)
    (tmp_path / "new" / "notes.txt").write_text("new")
    monkeypatch.setattr(hub, "cut_uploads_after", 1000)
    with pytest.raises(ConnectionError, match="push again"):
        push_folder(tmp_path / "new", "user/updated", api=api)
    assert hub.repositories["user/updated"].resolve("main") == before


def test_a_push_is_one_commit_without_hidden_files(hub, exported, impatient, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(exported, folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    push_folder(folder, "user/once", api=HfApi(hub.url, token=hub.token))
    assert len(hub.repositories["user/once"].commits) == 2  # the empty one of a new repository, and this
    assert not any(path.startswith(".git/") for path in hub.files("user/once"))


def test_without_the_right_token_nothing_is_made(hub, exported, impatient):
    with pytest.raises(OSError, match="401"):
        push_folder(exported, "user/foreign", api=HfApi(hub.url, token="hf_somebody_else"))
    assert "user/foreign" not in hub.repositories


def test_a_folder_without_a_checkpoint_is_not_pushed(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        push_folder(tmp_path, "user/nothing", api=HfApi(hub.url, token=hub.token))
    assert "user/nothing" not in hub.repositories


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of the export, and a private key beside it."""
    (tmp_path / "key").write_text("secret")
    return shutil.copytree(exported, tmp_path / "folder")


@pytest.fixture
def api(hub, impatient):
    return HfApi(hub.url, token=hub.token)


def test_what_a_link_leads_to_is_not_published(hub, folder, api):
    """`notes.txt` → a private key: the upload follows links, and what was public for a minute is public."""
    (folder / "notes.txt").symlink_to(folder.parent / "key")
    (folder / "keys").symlink_to(folder.parent, target_is_directory=True)
    with pytest.raises(ConversionError, match=r"has links.*\n  keys\n  notes\.txt"):
        push_folder(folder, "user/links", api=api)
    (folder / "notes.txt").unlink()
    (folder / "keys").unlink()
    os.mkfifo(folder / "queue")  # reading it would wait for ever
    with pytest.raises(ConversionError, match=r"no file.*\n  queue"):
        push_folder(folder, "user/links", api=api)
    assert "user/links" not in hub.repositories


def damaged_weights(folder):
    """(name, what is done to the folder, what the message says)"""
    path = folder / "model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))

    def saved(tensors):
        return lambda: save_file(tensors, path, metadata={"format": "pt"})

    return {
        "missing file": (path.unlink, "missing model.safetensors"),
        "cut": (lambda: os.truncate(path, path.stat().st_size - 10), "cut or damaged: model.safetensors"),
        "junk": (lambda: path.write_bytes(b"junk" * 100), "cut or damaged: model.safetensors"),
        "missing tensor": (saved({name: weights[name] for name in weights if name != first}), f"missing: {first}"),
        "surplus tensor": (saved({**weights, "another": torch.zeros(3)}), "surplus: another"),
        "another shape": (saved({**weights, first: weights[first][:1].clone()}), f"of another shape: {first}"),
        "no numbers": (saved({**weights, first: weights[first] * torch.nan}), f"not finite: {first}"),
    }


@pytest.mark.parametrize(
    "damage", ["missing file", "cut", "junk", "missing tensor", "surplus tensor", "another shape", "no numbers"]
)
def test_weights_that_nobody_could_use_are_not_published(hub, folder, api, damage, tmp_path, capsys):
    """Whoever opens the repository would find out, after the download."""
    act, message = damaged_weights(folder)[damage]
    act()
    with pytest.raises((ConversionError, FileNotFoundError), match=message):
        push_folder(folder, "user/damaged", api=api)
    assert "user/damaged" not in hub.repositories
    assert main(["export", str(folder), str(tmp_path / "again")]) == 2
    assert re.search(message.replace("missing model", r"missing:?\s*model"), capsys.readouterr().err)
    assert not (tmp_path / "again").exists()


def test_the_parts_of_a_network_can_be_pushed_too(hub, tiny_checkpoint, tmp_path, api):
    """An image tokenizer or a face parser of its own is a checkpoint; another model is none of ours."""
    model = GPTFaceModel.from_pretrained(tiny_checkpoint)
    for name, part in (("bare", model), ("tokenizer", model.image_tokenizer), ("parser", model.face_parser)):
        part.save_pretrained(tmp_path / name)
        push_folder(tmp_path / name, f"user/{name}", api=api)
        assert "model.safetensors" in hub.files(f"user/{name}")
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConversionError, match="of type 'bert', no GPTFace model"):
        push_folder(tmp_path / "bare", "user/bert", api=api)


def test_private_means_private(hub, folder, api):
    """On a public repository that is there, `--private` would publish what was to stay among colleagues."""
    push_folder(folder, "user/open", api=api)
    before = dict(hub.repositories["user/open"].branches)
    (folder / "notes.txt").write_text("for colleagues")
    with pytest.raises(ValueError, match="is a public repository"):
        push_folder(folder, "user/open", private=True, revision="v2", api=api)
    assert hub.repositories["user/open"].branches == before
    push_folder(folder, "user/closed", private=True, api=api)
    push_folder(folder, "user/closed", private=True, api=api)
    assert hub.repositories["user/closed"].private


def test_what_was_removed_here_goes_there_and_is_told(hub, folder, api, monkeypatch, capsys):
    """Whoever takes a file out of a folder, for it should not have been in it, expects it to be gone."""
    (folder / "notes.txt").write_text("a name that should not be here")
    push_folder(folder, "user/less", api=api)
    hub.repositories["user/less"].commits[hub.repositories["user/less"].branches["main"]][".gitattributes"] = b"*"
    (folder / "notes.txt").unlink()
    assert push_folder(folder, "user/less", keep=True, api=api).deleted == []
    assert "notes.txt" in hub.files("user/less")
    monkeypatch.setattr("gptface.conversion.hub_push.HfApi", lambda: api)
    assert main(["push", str(folder), "user/less"]) == 0
    assert "deleted notes.txt\n" in capsys.readouterr().out
    assert "notes.txt" not in hub.files("user/less") and ".gitattributes" in hub.files("user/less")
