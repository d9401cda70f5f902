"""Web servers, pools and data loaders: what runs beside something else gives what it gives alone."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from torch.utils.data import DataLoader
from transformers import pipeline

from gptface.data.code_dataset import CodeDataset, CodeTable
from gptface.training.pretraining_collator import PreTrainingCollator

INHERITED = {}


def edited(edit, face):
    return edit(face, prompt="smiling", region="mouth", num_images_per_prompt=2)[0]["image"].tobytes()


def edited_by_inherited(face):
    return edited(INHERITED["edit"], face)


@pytest.fixture
def pictures(face):
    return [face, face.rotate(90), face.rotate(180)]


def test_two_pipelines_in_two_threads_give_what_each_gives_alone(edit, tiny_checkpoint, pictures):
    """One random state, mask or picture shared in secret would show as another user's edit."""
    classify = pipeline("face-attribute-classification", model=str(tiny_checkpoint), aligned=True)
    alone = [edited(edit, picture) for picture in pictures], [classify(picture) for picture in pictures]
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            edits = pool.submit(lambda: [edited(edit, picture) for picture in pictures])
            scores = pool.submit(lambda: [classify(picture) for picture in pictures])
            assert (edits.result(), scores.result()) == alone


@pytest.mark.report("Threads that share a pipeline get each other's pictures")
def test_one_pipeline_serves_two_threads(edit, pictures):
    """Each thread gets what it would get alone.

    A web server keeps one pipeline for all of its threads.
    """
    alone = [edited(edit, picture) for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda picture: edited(edit, picture), pictures)) == alone


@pytest.mark.report("Forked servers and loader processes hang")
def test_a_pipeline_works_after_a_fork(edit, face):
    """A pipeline works in a forked process.

    Pre-forking servers load the model once and fork; a lock or thread pool held by the parent would hang the child.
    """
    INHERITED["edit"] = edit
    alone = edited(edit, face)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(edited_by_inherited, face).result(timeout=120) == alone


@pytest.mark.slow
def test_a_pipeline_travels_to_a_spawned_process(edit, face):
    """Windows and macOS start workers afresh and send them the pipeline: it must pickle."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(edited, edit, face).result(timeout=300) == edited(edit, face)


@pytest.fixture
def code_dataset():
    generator = np.random.default_rng(0)
    labels = [{name: int(generator.integers(2)) for name in ("Smiling", "Male", "Young")} for _ in range(32)]
    return CodeDataset(CodeTable(np.zeros((32, 2, 64), np.uint16), labels, [None] * 32))


def test_loader_workers_neither_repeat_each_other_nor_change_the_masks(code_dataset, tiny_tokenizer):
    """Forked workers inherit one random state: with a running generator all of them would draw the same masks."""
    collate = PreTrainingCollator(code_dataset.table, tiny_tokenizer, max_text_length=16)
    masks = {}
    for workers in (0, 2):
        loader = DataLoader(code_dataset, batch_size=4, collate_fn=collate, num_workers=workers)
        masks[workers] = np.concatenate([batch["image_mask"].numpy() for batch in loader])
    assert np.array_equal(masks[0], masks[2])
    partly = masks[2][~masks[2].all(1)]  # all cells masked is one mask, and a common one
    assert len(partly) > 16 and len(np.unique(partly, axis=0)) == len(partly)
