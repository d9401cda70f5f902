"""Lists, streams, data sets and rows in; batches through the model; an input that fails is its own affair."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from gptface.modeling_gptface.guidance import GuidanceError

TASKS = [
    "guided-face-editing",
    "face-attribute-classification",
    "facial-expression",
    "face-captioning",
    "face-parsing",
]


def faces(count, size=64):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def open_pipeline(tiny_checkpoint):
    """Task → its pipeline, with options that make it quick."""
    opened = {}

    def opener(task):
        if task not in opened:
            options = (
                {"num_inference_steps": 2, "seed": 0} if task in ("face-captioning", "guided-face-editing") else {}
            )
            if task != "text-to-face":
                options["aligned"] = True
            if task == "guided-face-editing":
                options |= {"force": True, "prompt": "smiling"}
            opened[task] = pipeline(task, model=str(tiny_checkpoint), **options)
        return opened[task]

    return opener


@pytest.fixture
def edit(open_pipeline):
    return open_pipeline("guided-face-editing")


@pytest.fixture
def classify(open_pipeline):
    return open_pipeline("face-attribute-classification")


def plain(result):
    """A result without what cannot be compared: pictures become their bytes, numbers are rounded."""
    if isinstance(result, dict):
        return {name: plain(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain(value) for value in result]
    if isinstance(result, Image.Image):
        return np.asarray(result).tobytes()
    return round(result, 4) if isinstance(result, float) else result


@pytest.mark.parametrize("task", TASKS)
def test_every_way_in_gives_what_one_by_one_gives(open_pipeline, task, tmp_path):
    """
    A folder is read by a loop, a generator, a torch data set, a column, or rows of bytes, and the answer is always the
    same.
    """
    pipe, pictures = open_pipeline(task), faces(3)
    expected = [plain(pipe(picture)) for picture in pictures]
    rows = []
    for index, picture in enumerate(pictures):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": f"{index}.png"}, "label": index})
    streams = {
        "list": pictures,
        "tuple": tuple(pictures),
        "generator": (picture for picture in pictures),
        "map": map(np.asarray, pictures),
        "KeyDataset": KeyDataset([{"photo": picture} for picture in pictures], "photo"),
        "rows": rows,
        "stream of rows": iter(rows),
        "undecoded": [row["image"] for row in rows],
    }
    for name, stream in streams.items():
        found = pipe(stream)
        assert isinstance(found, list) == (name in ("list", "tuple", "rows", "undecoded")), name
        assert [plain(result) for result in found] == expected, name
    assert plain(pipe(image=pictures[0])) == plain(pipe(rows[0])) == expected[0]
    assert pipe([]) == []


def test_columns_and_rows_of_datasets_stream_through(edit, classify):
    datasets = pytest.importorskip("datasets")
    pictures, prompts = faces(3), ["smiling", "a beard", "glasses"]
    table = datasets.Dataset.from_dict({"image": pictures, "prompt": prompts, "label": [0, 1, 2]}).cast_column(
        "image", datasets.Image()
    )
    undecoded = table.cast_column("image", datasets.Image(decode=False))
    expected = [classify(picture) for picture in pictures]
    for stream in (table["image"], undecoded["image"], table, undecoded, KeyDataset(table, "image")):
        results = classify(stream)
        assert len(results) == 3 and list(results) == expected
    assert list(classify(table.to_iterable_dataset())) == expected
    by_hand = [plain(edit(picture, prompt)) for picture, prompt in zip(pictures, prompts, strict=True)]
    assert [plain(result) for result in edit(undecoded)] == by_hand


def test_a_stream_is_read_as_its_results_are_asked_for(classify):
    """A camera or a data set of a million has no end that could be waited for."""
    read = []

    def endless():
        while True:
            read.append(1)
            yield faces(1)[0]

    results = iter(classify(endless(), batch_size=2))
    next(results)
    next(results)
    assert len(read) <= 4
    with pytest.raises(TypeError, match="no length"):
        len(classify(endless()))


@pytest.mark.report("A batch gives other results than one by one")
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_gives_what_each_gives_alone(open_pipeline, task):
    """They are the same, of all tasks."""
    pipe, pictures = open_pipeline(task), faces(5)
    alone = pipe(pictures)
    together = pipe(pictures, batch_size=3)
    for one, other in zip(alone, together, strict=True):
        one, other = (plain(each) for each in (one, other))
        if task == "guided-face-editing":
            one, other = ([each["image"] for each in results] for results in (one, other))
            first, second = (np.frombuffer(each[0], np.uint8).astype(int) for each in (one, other))
            assert (np.abs(first - second) <= 1).mean() > 0.99
        elif task == "face-parsing":
            assert [each["label"] for each in one] == [each["label"] for each in other]
        else:
            assert one == other


def test_a_batch_of_unlike_edits_gives_what_each_gives_alone(edit):
    """Captions, masks and steps of other lengths: what is done early must leave no trace in what goes on."""
    pictures = faces(6)
    prompts = ["smiling", "blond hair", "smiling and add glasses", "a beard", "glasses", "not smiling"]
    masks = [None, None, None, np.eye(64) > 0, np.ones((64, 64)), None]
    rows = [
        {"image": picture, "prompt": prompt, "mask_image": mask, "seed": seed}
        for seed, (picture, prompt, mask) in enumerate(zip(pictures, prompts, masks, strict=True))
    ]
    options = {"num_images_per_prompt": 2, "num_inference_steps": 4, "composite": "replace"}
    alone, together = edit(rows, **options), edit(rows, batch_size=6, **options)
    for one, other in zip(alone, together, strict=True):
        assert [each["seed"] for each in one] == [each["seed"] for each in other]
        for first, second in zip(one, other, strict=True):
            close = np.abs(np.asarray(first["face"]).astype(int) - np.asarray(second["face"])) <= 1
            assert close.mean() > 0.99 and first["prompt"] == second["prompt"] and first["edits"] == second["edits"]


def test_every_face_of_every_photo_of_a_batch_is_edited(edit):
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.37, 0.75], [0.63, 0.75]]) * 60
    photos = faces(2, 128)
    ask = {"aligned": False, "face": "all", "landmarks": [np.stack([points, points + 50]), points[None]]}
    both = edit(photos, batch_size=2, **ask)
    assert [len(results[0]["face"]) for results in both] == [2, 1]
    alone = edit(photos, **ask)
    assert [plain(each[0]["mask"]) for each in both] == [plain(each[0]["mask"]) for each in alone]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("stage", ["preprocess", "_forward", "postprocess"])
@pytest.mark.parametrize("error", [RuntimeError, TypeError, GuidanceError, FloatingPointError, KeyError, OSError])
def test_an_error_anywhere_is_that_of_its_input(classify, monkeypatch, stage, error, batch_size):
    """One photo of a night's run must not end it, whatever goes wrong with it."""
    pictures, original = faces(3), getattr(classify, stage)
    poison = classify.processor(images=[pictures[1]])["pixel_values"]
    logits = [each["score"] for each in classify(pictures[1])]

    def spoiled(given, **options):
        states = given if isinstance(given, list) else [given]
        for state in states:
            if stage == "preprocess":
                bad = state.value is pictures[1]
            elif stage == "_forward":
                bad = torch.equal(state["pixel_values"], poison)
            else:
                bad = torch.allclose(state["logits"].sigmoid().sort(descending=True).values[0], torch.tensor(logits))
            if bad:
                raise error("the lights went out")
        return original(given, **options)

    expected = classify(pictures)
    monkeypatch.setattr(classify, stage, spoiled)
    results = classify(pictures, on_error="return", batch_size=batch_size)
    assert "image 1" in results[1]["error"] and "lights" in results[1]["error"]
    assert plain([results[0], results[2]]) == plain([expected[0], expected[2]])
    assert "lights" in classify(pictures[1], on_error="return")["error"]
    streamed = list(classify((picture for picture in pictures), on_error="return", batch_size=batch_size))
    assert [isinstance(each, dict) for each in streamed] == [False, True, False]
    with pytest.raises(error, match="image 1"):
        classify(pictures, batch_size=batch_size)


def test_a_row_that_cannot_be_read_keeps_its_place(classify):
    class Table(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise EOFError("the disk is gone")
            return faces(1)[0]

    results = list(classify(Table(), on_error="return", batch_size=2))
    assert "disk is gone" in results[1]["error"] and "error" not in results[0][0] and "error" not in results[2][0]


def test_prompts_come_beside_pictures_in_any_common_way(edit, open_pipeline):
    (face,) = faces(1)
    expected = plain(edit(face, prompt="a beard"))
    assert plain(edit(face, "a beard")) == expected
    assert plain(edit(image=face, prompt="a beard")) == expected
    assert plain(edit({"image": face, "prompt": "a beard"})) == expected
    assert plain(edit([{"image": face, "prompt": "a beard"}], prompt="smiling")[0]) == expected, (
        "a row's own comes first"
    )
    assert plain(next(iter(edit({"image": face, "prompt": each} for each in ["a beard"])))) == expected
    make = open_pipeline("text-to-face")
    words = {"num_inference_steps": 2, "seed": 3}
    listed = make(["a man", "a smiling woman"], batch_size=2, **words)
    streamed = make(({"prompt": each} for each in ["a man", "a smiling woman"]), **words)
    assert [plain(each[0]["seed"]) for each in listed] == [3, 3]
    for one, other in zip(listed, streamed, strict=True):
        close = np.abs(np.asarray(one.images[0]).astype(int) - np.asarray(other.images[0])) <= 1
        assert close.mean() > 0.99
    with pytest.raises(TypeError, match="give a picture"):
        edit(prompt="smiling")
    with pytest.raises(ValueError, match="give prompt in rows"):
        edit((face for _ in range(2)), prompt=["smiling", "a beard"])


@pytest.mark.report("Forked servers and loader processes hang")
def test_several_processes_may_read(classify):
    """Processes of a DataLoader may read the pictures.

    The detector of a data set of large photos runs beside the model.
    """
    pictures = faces(3)
    assert list(
        classify(KeyDataset([{"x": each} for each in pictures], "x"), num_workers=1, batch_size=2)
    ) == classify(pictures, batch_size=2)


@pytest.mark.report("The same seed gives another picture")
def test_a_list_draws_nothing_from_the_global_generator(edit):
    """Lists draw nothing from torch's own generator.

    Who seeds torch gets the same pictures from a list as one by one.
    """
    (face,) = faces(1)
    unseeded = pipeline("guided-face-editing", model=edit.model, processor=edit.processor, num_inference_steps=1)
    torch.manual_seed(1)
    one = unseeded(face, "smiling", aligned=True, force=True)[0]["seed"]
    torch.manual_seed(1)
    assert unseeded([face], "smiling", aligned=True, force=True)[0][0]["seed"] == one
