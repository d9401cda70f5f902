"""Where a face is through a film: trembling landmarks, faces that come and go, cuts."""

import numpy as np
import pytest
from PIL import Image

from gptface.pipelines import face_track
from gptface.pipelines.face_track import FaceFollower, Sight, locate, smooth
from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.detection import default_detector


def sights(count, move=(0.0, 0.0), **changes):
    return [Sight(CROP_LANDMARKS + np.array(move) * index, 1.0) for index in range(count)]


def test_tremble_goes_and_motion_stays_without_lag():
    time = np.arange(40)
    path = np.stack([3 * time, 20 * np.sin(time / 6)], axis=1)[:, None].repeat(5, axis=1)
    tremble = np.random.default_rng(0).normal(0, 0.7, path.shape)
    smoothed = smooth(path + tremble)
    assert np.abs(smooth(path)[4:-4] - path[4:-4]).max() < 0.5
    inner = np.s_[5:-5]
    assert np.diff(smoothed - path, axis=0)[inner].std() < 0.4 * np.diff(tremble, axis=0)[inner].std()
    assert np.array_equal(smooth(path[:1]), path[:1])


def test_a_face_that_is_lost_for_a_moment_is_taken_to_have_moved_on():
    seen = sights(12, (2, 0))
    for index in (4, 5):
        seen[index] = Sight(None)
    places = locate(seen)
    assert all(places) and places[5].landmarks == pytest.approx(CROP_LANDMARKS + np.array([10, 0]), abs=0.1)
    assert places[5].key not in (4, 5)  # what nobody saw decides nothing


def test_frames_without_the_face_have_no_place_and_the_edit_fades_there():
    seen = sights(30)
    for index in range(10, 20):
        seen[index] = Sight(None)
    places = locate(seen)
    assert [place is None for place in places] == [10 <= index < 20 for index in range(30)]
    weights = [place.weight for place in places if place is not None]
    assert weights[0] == weights[5] == weights[-1] == 1  # no fade where the film begins and ends
    assert weights[9] == weights[10] < weights[8] < 1


def test_a_cut_decides_anew_and_is_not_smoothed_over():
    seen = sights(16)
    seen[8:] = [Sight(each.landmarks + 100, 1.0, cut=index == 0) for index, each in enumerate(seen[8:])]
    places = locate(seen)
    assert {place.key < 8 for place in places[:8]} == {True} and {place.key >= 8 for place in places[8:]} == {True}
    assert np.abs(places[7].landmarks - CROP_LANDMARKS).max() < 1e-6 and places[8].weight == 1


def test_the_best_frame_decides_and_a_face_that_turns_far_is_decided_anew():
    seen = sights(20)
    seen[6] = Sight(seen[6].landmarks, 5.0)
    assert {place.key for place in locate(seen)} == {6}
    turned = CROP_LANDMARKS + np.array([[-9, 0], [9, 0], [22, 0], [0, 0], [0, 0]])
    for index in range(12, 20):
        seen[index] = Sight(turned, 1.0)
    keys = [place.key for place in locate(seen)]
    assert keys[0] == 6 and keys[-1] >= 12
    for index in range(20):  # one that nods to and fro ends
        shake = np.random.default_rng(index).normal(0, 12, (5, 2))
        seen[index] = Sight(CROP_LANDMARKS + shake, 1.0)
    assert len({place.key for place in locate(seen)}) <= face_track.MOST_KEYS


def test_a_portrait_is_followed_through_a_film_and_a_cut_is_seen(moving_portrait):
    frames = moving_portrait(8)
    follower = FaceFollower(default_detector())
    seen = [follower.see(frame) for frame in [*frames, Image.new("RGB", frames[0].size, "navy")]]
    assert [sight.cut for sight in seen] == [False] * 8 + [True]
    assert seen[-1].landmarks is None
    for frame, sight in zip(frames, seen, strict=False):
        alone = default_detector().detect(frame)[0].landmarks
        assert np.abs(sight.landmarks.mean(0) - alone.mean(0)).max() < 3  # a face here is 70 pixels wide
