"""An edit through a film: the same face in all frames, calm, and nothing else touched."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gptface.cli import main
from gptface.metrics.flicker import Flicker
from gptface.pipelines.film_editing import KEPT, _mixed, edit_film
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.detection import FaceNotFoundError
from gptface.processing.face_points import Lips
from gptface.processing.film_files import open_film
from gptface.processing.mouth import MouthCut
from gptface.processing.warping import MovedLayer

HOW = {"seed": 3, "num_inference_steps": 2, "force": True}
DRAWN = {**HOW, "region": "all"}


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint):
    return load_pipeline("guided-face-editing", str(tiny_checkpoint))


def save(frames, path, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, lossless=True, **options)
    return path


@pytest.fixture
def film(moving_portrait, tmp_path):
    return save(moving_portrait(8), tmp_path / "film.webp")


def frames_of(path):
    return [np.asarray(frame.image.convert("RGB"), int) for frame in open_film(path).frames()]


def test_every_frame_has_the_edit_that_was_decided_once(pipe, film, tmp_path, monkeypatch):
    drawn = []
    generate = pipe.model.generate
    monkeypatch.setattr(pipe.model, "generate", lambda **options: drawn.append(1) or generate(**options))
    seen: list[tuple[str, int, int]] = []

    def progress(*done):
        seen.append(done)

    report = edit_film(pipe, film, "smiling", tmp_path / "out.webp", composite="replace", progress=progress, **DRAWN)
    assert drawn == [1]
    assert seen == [("looking", n, 8) for n in range(1, 9)] + [("editing", n, 8) for n in range(1, 9)]
    assert (report["frames"], report["edited_frames"], report["scenes"]) == (8, 8, 1)
    [decided] = report["decided"]
    assert decided["edits"] == ["smiling"] and decided["seed"] == 3 and 0 <= decided["frame"] < 8
    json.dumps(report)
    left, top, right, bottom = decided["box"]
    for before, after in zip(frames_of(film), frames_of(tmp_path / "out.webp"), strict=True):
        changed = np.abs(after - before).max(-1) > 30
        assert changed[int(top) : int(bottom), int(left) : int(right)].sum() > 100


def test_the_same_seed_gives_the_same_film(pipe, film, tmp_path):
    for name in ("one.webp", "two.webp"):
        edit_film(pipe, film, "smiling", tmp_path / name, **DRAWN)
    assert (tmp_path / "one.webp").read_bytes() == (tmp_path / "two.webp").read_bytes()


def test_an_edit_is_calmer_than_one_of_each_frame_by_itself(pipe, moving_portrait, tmp_path):
    """People see a mouth that trembles before they see anything else."""
    rng = np.random.default_rng(0)
    still = np.asarray(moving_portrait(1)[0], float)
    noisy = [Image.fromarray((still + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8)) for _ in range(6)]
    report = edit_film(pipe, save(noisy, tmp_path / "still.webp"), "smiling", tmp_path / "out.webp", **DRAWN)
    alone = Flicker()
    for frame in noisy:
        result = pipe(frame, "smiling", **DRAWN)[0]
        alone.add(*(np.asarray(each) for each in (frame, result["image"])), np.asarray(result["mask"]) > 127)
    assert report["flicker"] <= 1.5 and report["flicker"] < alone.ratio


def test_frames_without_the_face_stay_and_another_scene_is_decided_by_itself(pipe, moving_portrait, tmp_path):
    frames = moving_portrait(4)
    blank = Image.new("RGB", frames[0].size, (40, 60, 90))
    others = moving_portrait(4, "clean_shaven.jpg")
    film = save([*frames, blank, blank, *others], tmp_path / "film.webp")
    report = edit_film(pipe, film, "smiling", tmp_path / "out.webp", **DRAWN)
    assert report["scenes"] == 3 and report["edited_frames"] == 8
    first, second = (each["frame"] for each in report["decided"])
    assert first < 4 and second >= 6
    before, after = frames_of(film), frames_of(tmp_path / "out.webp")
    assert np.abs(after[4] - before[4]).mean() < 2 < np.abs(after[3] - before[3]).max()


def test_a_new_colour_is_transferred_in_each_frame_and_does_not_go_out(pipe, moving_portrait, tmp_path, monkeypatch):
    """Hair that flashes in its old colour whenever the parser misses it is the first thing that is seen."""
    parse_faces, looks = pipe.parse_faces, []

    def parse(faces):
        [found] = parse_faces(faces)
        looks.append(found)
        shown = np.zeros_like(found.probabilities)
        half = shown.shape[1] // 2
        shown[found.labels.index("hair"), : half if len(looks) != 4 else 0] = 1
        shown[found.labels.index("skin")] = 1 - shown.sum(0)
        return [replace(found, probabilities=shown)]

    monkeypatch.setattr(pipe, "parse_faces", parse)
    monkeypatch.setattr(pipe.model, "generate", lambda **options: pytest.fail("a colour is drawn"))
    film = save(moving_portrait(6), tmp_path / "film.webp")
    report = edit_film(pipe, film, "blond hair", tmp_path / "out.webp", **HOW)
    assert report["edited_frames"] == 6 and len(looks) == 7  # once to decide
    changes = [
        np.abs(after - before).mean()
        for before, after in zip(frames_of(film), frames_of(tmp_path / "out.webp"), strict=True)
    ]
    assert min(changes) > 0.5 * max(changes) > 1


def test_lips_and_brows_that_are_moved_do_not_tremble_with_the_parser():
    def layer(shift, lip_row):
        edge = np.array([0, 0, 0, 0, lip_row])
        lips = Lips((46 + shift, 82 + shift), edge, edge + 1, (4.0, 5.0))
        cut = MouthCut(lips, 1.0, 0.0, 80.0, np.full(128, 120.0), np.full(3, 0.5))
        return MovedLayer(np.full((8, 8, 2), shift, np.float32), np.ones((8, 8)), np.eye(2, 3), cut)

    still, mixed = layer(0.0, 96.0), _mixed(layer(0.0, 96.0), layer(2.0, 98.0))
    assert np.allclose(mixed.movement, 2 - 2 * KEPT)
    rows = [np.mean(each.cut.lips.edges(np.array([64.0]))[:2]) for each in (still, mixed, layer(2.0, 98.0))]
    assert rows[1] == pytest.approx(np.mean(rows[::2]), abs=0.1)
    assert _mixed(replace(still, cut=None), still).cut is still.cut
    parting = [replace(still, cut=replace(still.cut, close=0.0, part=part)) for part in (2.0, 6.0)]
    assert _mixed(*parting).cut.part == 6 - 4 * KEPT, "as the lips: the gap between them is both"


def test_lips_that_open_are_followed_at_once():
    """A line that lagged behind the lower lip cut through the teeth: their lower halves were seen again below."""

    def layer(gap):
        upper, lower = np.array([0, 0, 0, 0, 96.0]), np.array([0, 0, 0, 0, 96.0 + gap])
        cut = MouthCut(Lips((46, 82), upper, lower, (4.0, 5.0)), 0.0, 4.0, 80.0, np.full(128, 120.0), np.full(3, 0.5))
        return MovedLayer(np.zeros((8, 8, 2), np.float32), np.ones((8, 8)), np.eye(2, 3), cut)

    for before, after, lag in ((1.0, 7.0, 0.01), (7.0, 1.0, 0.01), (2.0, 2.4, 0.2)):
        lower = _mixed(layer(before), layer(after)).cut.lips.edges(np.array(64.0))[1]
        assert abs(lower - 96 - after) < lag
    assert _mixed(layer(2.0), layer(2.4)).cut.lips.edges(np.array(64.0))[1] < 98.3, "what trembles is smoothed"


def test_two_edits_are_both_carried(pipe, film, tmp_path):
    report = edit_film(pipe, film, "eyeglasses, no beard", tmp_path / "out.webp", **HOW)
    assert [each["edits"] for each in report["decided"]] == [["eyeglasses"], ["no_beard"]]


def test_what_makes_no_sense_for_a_film_is_refused_before_any_work(pipe, film, tmp_path):
    target = tmp_path / "out.webp"
    for wrong, message in (
        ({"face": "all"}, "one face"),
        ({"mask_image": Image.new("L", (8, 8))}, "mask_image is about one picture"),
        ({"aligned": True}, "aligned is about one picture"),
        ({"composite": "paint"}, "composite must be"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            edit_film(pipe, film, "smiling", target, **wrong)
    with pytest.raises(TypeError, match="parrot"):
        edit_film(pipe, film, "smiling", target, parrot=1)
    with pytest.raises(ValueError, match="did you mean"):
        edit_film(pipe, film, "as a pirate", target)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="fills a hole of one picture"):
        edit_film(pipe, film, "remove the mask", target)
    save([Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")], tmp_path / "empty.webp")
    with pytest.raises(FaceNotFoundError, match="no frame shows a face"):
        edit_film(pipe, tmp_path / "empty.webp", "smiling", target)
    assert not target.exists()


def test_the_command_edits_films(tiny_checkpoint, film, tmp_path, capsys):
    how = ["--model", str(tiny_checkpoint), "--steps", "2", "--force", "--draw", "--region", "all"]
    output = tmp_path / "out.webp"
    assert main(["edit", str(film), "smiling", "-o", str(output), "--json", "--timing", *how]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["film"] == str(film) and report["frames"] == 8 and report["flicker"] > 0
    assert "difference of frames" in captured.err and "film" in captured.err
    assert b"compositeWithTrained" in Image.open(output).info["xmp"]
    # the first frame, where no film can come out of it
    with pytest.warns(UserWarning, match="several frames"):
        assert main(["edit", str(film), "smiling", "-o", str(tmp_path / "out.png"), *how]) == 0
    for wrong, message in (
        ([str(film), "smiling", "-o", str(output), "--compare"], "--compare is for photos"),
        (["film.mp4", str(film), "smiling", "-o", str(tmp_path / "out.mp4")], "one at a time"),
        (["film.mp4", "smiling", "-o", str(tmp_path / "out.png")], "written as .mp4"),
    ):
        assert main(["edit", *wrong, *how]) == 2
        assert message in capsys.readouterr().err
