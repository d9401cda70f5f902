"""Training of the face parser: what a user of `gptface train-parser` relies on."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from gptface import GPTFaceParser, GPTFaceParserConfig
from gptface.cli import main
from gptface.data.face_parsing_augmentation import IGNORED, ParsingAugmentation
from gptface.data.face_parsing_data import read_parsed_faces
from gptface.metrics.segmentation_scores import confusion_counts, intersection_over_union
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.training.face_parser_training import (
    CHECKPOINT_NAME,
    FaceParserTrainingConfig,
    ParserTrainingArguments,
    class_weights,
    face_weights,
    new_parser,
    parsing_loss,
    run_face_parser_training,
    train_face_parser,
    with_all_classes,
)

TINY = {"image_size": 32, "block_out_channels": [8, 8, 16, 16], "dilations": [1]}
STILL = {"rotation": 0.0, "shift": 0.0, "wide": 0.0, "near_scale": (1.0, 1.0), "colour": 0.0}
PLAIN = ParsingAugmentation(**STILL, grey=0.0, soft=0.0, noisy=0.0, covered=0.0)


def bands(count=6, size=32):
    """Faces of three classes in bands that their colours tell: uint8 [N, S, S, 3] and [N, S, S]."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, size, size, dtype=torch.uint8)
    for index in range(count):
        top, bottom = 8 + index % 4, 20 + index % 5
        masks[index, top:bottom] = 1
        masks[index, bottom:] = 10
    colours = torch.zeros(len(FACE_CLASSES), 3)
    colours[1], colours[10] = torch.tensor([220.0, 60, 60]), torch.tensor([40.0, 60, 220])
    images = colours[masks.long()] + 10 * torch.rand(count, size, size, 3, generator=generator)
    return images.to(torch.uint8), masks


def encoded(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def faces_file(tmp_path):
    """Four faces with masks in CelebAMask-HQ's classes, one as plain bytes, and two without."""
    images, masks = bands(6)
    original = {0: 0, 1: 1, 10: 13}  # hair is the 14th class there
    rows = []
    for image, mask in zip(images.numpy(), masks.numpy(), strict=True):
        classes = np.vectorize(original.get)(mask).astype(np.uint8)
        rows.append({"image": {"bytes": encoded(image), "path": None}, "mask": encoded(classes)})
    rows[4]["mask"] = rows[5]["mask"] = None
    table = pa.table({name: [row[name] for row in rows] for name in ("image", "mask")})
    path = tmp_path / "faces.parquet"
    pq.write_table(table.append_column("Eyeglasses", pa.array([None] * 4 + [0, 1])), path)
    return path


def test_files_with_and_without_masks(faces_file):
    faces = read_parsed_faces([faces_file], 32)
    images, masks = bands(6)
    assert torch.equal(faces.images, images[:4]) and torch.equal(faces.masks, masks[:4])
    assert torch.equal(faces.unlabelled, images[4:])
    glasses = faces.priors[:, FACE_CLASSES.index("eyeglasses")]
    assert glasses[0] == -torch.inf and glasses[1] > 0
    assert len(read_parsed_faces([faces_file], 32, limit=2).masks) == 2
    assert read_parsed_faces([faces_file], 16).masks.shape == (4, 16, 16)


def test_pictures_with_celebas_alignment_are_cut_around_the_crop(faces_file, tmp_path):
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[20:198] = 200
    pq.write_table(pa.table({"image": [encoded(picture)]}), tmp_path / "celeba.parquet")
    faces = read_parsed_faces([faces_file, tmp_path / "celeba.parquet"], 32)
    assert (faces.unlabelled[2] == 200).all()


def test_files_that_do_not_do(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="no column `image`"):
        read_parsed_faces([tmp_path / "text.parquet"])
    image, _ = bands(1)
    pq.write_table(pa.table({"image": [encoded(image[0].numpy())]}), tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match="no face with a mask"):
        read_parsed_faces([tmp_path / "bare.parquet"])
    rows = {"image": [encoded(image[0].numpy())], "mask": [encoded(np.full((32, 32), 19, np.uint8))]}
    pq.write_table(pa.table(rows), tmp_path / "many.parquet")
    with pytest.raises(ValueError, match="19 classes"):
        read_parsed_faces([tmp_path / "many.parquet"])


def test_masks_move_with_their_pictures():
    """A mask that is left behind when its picture is turned teaches nonsense."""
    images, masks = bands(8)
    augmentation = ParsingAugmentation(colour=0.0, grey=0.0, soft=0.0, noisy=0.0, covered=0.0)
    pixels, labels = augmentation(images, masks, torch.Generator().manual_seed(0))
    red, blue = pixels[:, 0], pixels[:, 2]
    inner = labels != IGNORED
    assert inner.float().mean() > 0.2 and (labels[inner] >= 0).all()
    for shows, name in (((red > 0.5) & (blue < 0), 1), ((blue > 0.5) & (red < 0), 10)):
        agree = ((labels == name) & shows & inner).sum() / (shows & inner).sum()
        assert agree > 0.9


def test_without_changes_a_face_stays_or_is_mirrored():
    images, masks = bands(8)
    pixels, labels = PLAIN(images, masks, torch.Generator().manual_seed(0))
    assert torch.equal(labels, masks.long())  # bands are their own mirror images
    assert ((pixels + 1) * 127.5 - images.permute(0, 3, 1, 2)).abs().mean() < 8


def test_what_comes_from_beyond_the_crop_does_not_count():
    images, masks = bands(8)
    small = ParsingAugmentation(wide=1.0, wide_scale=(0.5, 0.5), rotation=0.0, covered=0.0)
    _, labels = small(images, masks, torch.Generator().manual_seed(0))
    assert abs((labels != IGNORED).float().mean() - 0.25) < 0.05


def test_the_same_generator_gives_the_same_batch():
    images, masks = bands(5)
    one, two = (ParsingAugmentation()(images, masks, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert torch.isfinite(one[0]).all() and one[0].abs().max() <= 1


def test_rare_classes_weigh_more():
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    masks[0, 0, 0] = 3
    weights = class_weights(masks, len(FACE_CLASSES), 0.25)
    assert weights[3] > 2 * weights[0] and abs(weights[0] - 1) < 0.05
    shown = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    assert face_weights(shown, 0.5).tolist() == [2.0, 1.0, 1.0, 1.0]


def test_the_loss_falls_with_the_right_answer_and_ignores_what_does_not_count():
    labels = torch.randint(3, (2, 8, 8))
    labels[:, :2] = IGNORED
    right = torch.nn.functional.one_hot(labels.clamp(min=0), 3).permute(0, 3, 1, 2) * 20.0
    weights = torch.ones(3)
    assert parsing_loss(right, labels, weights, 1.0) < 0.01 < parsing_loss(-right, labels, weights, 1.0)
    changed = right.clone()
    changed[:, :, :2] = -changed[:, :, :2]
    torch.testing.assert_close(parsing_loss(changed, labels, weights, 1.0), parsing_loss(right, labels, weights, 1.0))


def test_it_learns_bands():
    images, masks = bands(6)
    arguments = ParserTrainingArguments(steps=60, batch_size=6, learning_rate=1e-2, weight_average=0.8)
    parser = new_parser(GPTFaceParserConfig(**TINY), 0)
    trained = train_face_parser(images, masks, arguments, parser=parser, augmentation=PLAIN)
    predicted = trained(images.permute(0, 3, 1, 2).float() / 127.5 - 1).logits.argmax(1)
    assert (predicted == masks).float().mean() > 0.9


def test_unlabelled_faces_are_labelled_within_what_is_known_of_them():
    """A face of which an attribute says that it wears no glasses never teaches glasses."""
    from gptface.training.face_parser_training import predict_probabilities

    images, masks = bands(6)
    parser = new_parser(GPTFaceParserConfig(**TINY), 0).eval()
    priors = torch.zeros(6, len(FACE_CLASSES))
    priors[:, 3] = -torch.inf
    probabilities = predict_probabilities(parser, images, priors)
    assert (probabilities[:, 3] == 0).all() and torch.isfinite(probabilities).all()
    arguments = ParserTrainingArguments(steps=8, batch_size=4, confidence=0.0)
    trained = train_face_parser(images, masks, arguments, unlabelled=images, priors=priors, parser=parser)
    assert all(torch.isfinite(parameter).all() for parameter in trained.parameters())


def test_tensors_that_do_not_do():
    images, masks = bands(2)
    with pytest.raises(ValueError, match="expected"):
        train_face_parser(images, masks[:1], ParserTrainingArguments(steps=1))
    with pytest.raises(ValueError, match="length of the run"):
        ParserTrainingArguments()


@pytest.fixture
def recipe(faces_file, tmp_path):
    path = tmp_path / "recipe.yaml"
    values = {
        "output_dir": str(tmp_path / "run"),
        "train": [faces_file.name],
        "evaluation": [faces_file.name],
        "data_dir": str(tmp_path),
        "model": TINY,
        "arguments": {"steps": 4, "batch_size": 4, "log_every": 1},
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_command_leaves_a_parser_of_half_precision(recipe, tmp_path, capsys, monkeypatch):
    assert main(["train-parser", str(recipe)]) == 0
    folder = capsys.readouterr().out.strip()
    parser = GPTFaceParser.from_pretrained(folder)
    assert all(torch.equal(weight, weight.half().float()) for weight in parser.parameters())
    bars = []
    monkeypatch.setattr("gptface.evaluation.parsing.progress", lambda items, what: bars.append(what) or items)
    assert main(["evaluate", "parsing", "--data", str(tmp_path / "faces.parquet"), "--model", folder]) == 0
    assert "iou.hair" in capsys.readouterr().out and bars == ["batches of faces"]


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    images, masks = bands(6)
    arguments = ParserTrainingArguments(steps=6, batch_size=4)
    whole = train_face_parser(images, masks, arguments, parser=new_parser(GPTFaceParserConfig(**TINY), 0))
    file = tmp_path / CHECKPOINT_NAME
    stopped = _Stop(3)
    with pytest.raises(KeyboardInterrupt):
        train_face_parser(
            images,
            masks,
            ParserTrainingArguments(steps=6, batch_size=4, checkpoint_every=-1),
            parser=new_parser(GPTFaceParserConfig(**TINY), 0),
            augmentation=stopped,
            checkpoint=file,
        )
    again = train_face_parser(
        images, masks, arguments, parser=new_parser(GPTFaceParserConfig(**TINY), 0), checkpoint=file
    )
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


class _Stop(ParsingAugmentation):
    """An augmentation that is interrupted after some batches."""

    def __init__(self, batches):
        super().__init__()
        object.__setattr__(self, "left", batches)

    def __call__(self, *arguments):
        if self.left == 0:
            raise KeyboardInterrupt
        object.__setattr__(self, "left", self.left - 1)
        return super().__call__(*arguments)


def test_intersection_over_union():
    labels, predicted = torch.tensor([[0, 0, 1, IGNORED]]), torch.tensor([[0, 1, 1, 2]])
    scores = intersection_over_union(confusion_counts(predicted, labels, 3))
    assert scores[:2].tolist() == [0.5, 0.5] and scores[2].isnan()


def test_a_parser_of_fewer_classes_learns_the_others():
    """One that was trained before a class came sees what it saw, and nothing of the new one anywhere."""
    few = FACE_CLASSES[:-1]
    config = GPTFaceParserConfig(
        **TINY, id2label=dict(enumerate(few)), label2id={name: i for i, name in enumerate(few)}
    )
    old = new_parser(config, 0).eval()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grown = with_all_classes(old, 0).eval()
    assert grown.config.class_names == FACE_CLASSES
    with torch.no_grad():
        before, after = old.probabilities(pixels), grown.probabilities(pixels)
    assert (after[:, :-1] - before).abs().max() < 0.05 and after[:, -1].max() < 0.05
    assert with_all_classes(grown, 0) is grown


def test_a_parser_of_other_classes_stays():
    own = GPTFaceParserConfig(**TINY, id2label={0: "face", 1: "rest"}, label2id={"face": 0, "rest": 1})
    parser = new_parser(own, 0)
    assert with_all_classes(parser, 0) is parser


def test_masks_are_not_painted_for_a_parser_that_cannot_tell_them(faces_file, tmp_path):
    own = GPTFaceParserConfig(**TINY, id2label={0: "face", 1: "rest"}, label2id={"face": 0, "rest": 1})
    new_parser(own, 0).save_pretrained(tmp_path / "own")
    recipe = FaceParserTrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=[str(faces_file)],
        init=str(tmp_path / "own"),
        face_masks=1,
        arguments={"steps": 1},
        device="cpu",
    )
    with pytest.raises(ValueError, match="face_masks needs a parser that has the class 'face_mask'"):
        run_face_parser_training(recipe)
