"""Pictures without codes: pre-training starts from tars and parquet files as they came."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.data import encode
from gptface.data.code_dataset import load_code_table
from gptface.data.encode import encode_dataset
from gptface.data.picture_codes import encode_collections
from gptface.training.pretraining import PreTrainingConfig, pretrain


def png(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(image_size=64, hidden_channels=4, latent_channels=4))


@pytest.fixture
def shards(tmp_path):
    """Two tars of four faces with texts each; one picture is damaged."""
    folder = tmp_path / "web"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for face in range(4):
                key = f"{shard}{face}"
                picture = b"no picture" if (shard, face) == (1, 2) else png(10 * shard + face)
                for name, data in ((f"{key}.png", picture), (f"{key}.txt", f"face number {key}".encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder


def test_tars_become_codes_with_their_texts_once(shards, tokenizer, tmp_path):
    folders = encode_collections({str(shards): 2}, tmp_path / "cache", tokenizer)
    assert folders == {str(tmp_path / "cache/web"): 2}
    table = load_code_table([*folders], tokenizer.fingerprint())
    assert table.texts == [
        f"face number {shard}{face}" for shard in (0, 1) for face in range(4) if (shard, face) != (1, 2)
    ]
    times = [part.stat().st_mtime_ns for part in sorted((tmp_path / "cache/web").iterdir())]
    assert encode_collections({str(shards): 2}, tmp_path / "cache", tokenizer) == folders
    assert [part.stat().st_mtime_ns for part in sorted((tmp_path / "cache/web").iterdir())] == times
    assert encode_collections(folders, tmp_path / "cache", tokenizer) == folders  # codes are taken as they are


def test_ranks_share_the_parts(shards, tokenizer, tmp_path, monkeypatch):
    """They are those that one process makes: a run goes on with another number of ranks."""
    monkeypatch.setattr(encode, "ROWS_PER_PART", 3)
    for rank in range(2):
        encode_collections([shards], tmp_path / "cache", tokenizer, rank=rank, world_size=2)
        parts = sorted(part.name for part in (tmp_path / "cache/web").glob("*.parquet"))
        assert (
            parts == [["part-00000.parquet", "part-00002.parquet"], [f"part-0000{n}.parquet" for n in range(3)]][rank]
        )
    encode_collections([shards], tmp_path / "alone", tokenizer)
    first, second = (
        load_code_table([tmp_path / name / "web"], tokenizer.fingerprint()) for name in ("cache", "alone")
    )
    assert (first.codes == second.codes).all() and first.texts == second.texts


def test_parquet_gives_the_codes_of_gptface_encode(tokenizer, tmp_path):
    rows = [{"image": {"bytes": png(face)}, "Smiling": face % 2, "race": 3} for face in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "faces.parquet")
    encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, "aligned")
    folders = encode_collections([tmp_path / "faces.parquet"], tmp_path / "cache", tokenizer)
    first, second = (load_code_table([f], tokenizer.fingerprint()) for f in (tmp_path / "codes", *folders))
    assert (first.codes == second.codes).all()
    assert first.labels == second.labels == [{"Smiling": face % 2, "grayscale": 0} for face in range(3)]


def test_a_collection_that_is_not_there_is_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tar"):
        encode_collections([tmp_path / "nowhere.tar"], tmp_path / "cache", tokenizer)


def test_a_run_on_tars_streams_them(shards, write_recipe, tmp_path):
    arguments = {"max_steps": 2, "per_device_train_batch_size": 4, "eval_strategy": "no", "save_strategy": "no"}
    recipe = write_recipe(tmp_path, train=[str(shards)], evaluation=[], streaming=True, arguments=arguments)
    assert (pretrain(PreTrainingConfig.from_yaml(recipe)) / "model.safetensors").exists()
    assert [part.name for part in (tmp_path / "run/codes/web").glob("*.parquet")] == ["part-00000.parquet"]
