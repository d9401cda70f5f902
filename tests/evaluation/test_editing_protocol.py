"""`gptface evaluate editing|generation|caption|inpaint|unmask|saliency`: figures that a reader can trust."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import pipeline

from gptface.cli import main
from gptface.data.caption_parsing import stated_attributes
from gptface.data.captions import PHRASES, phrase_for
from gptface.evaluation import inpainting
from gptface.evaluation.captioning import attribute_f1
from gptface.evaluation.crops import LabelledCrop, PerceptualDistance, first_crops, psnr
from gptface.evaluation.editing import (
    ARMS,
    ArmResult,
    EditingProtocol,
    arm_parameters,
    changed_where_masked_out,
    paired_bootstrap,
    share_that_differs,
)
from gptface.evaluation.generation import agreement_figures
from gptface.evaluation.hole_shapes import HOLES, cover, mean_face_fill
from gptface.evaluation.judge import DEFAULT_JUDGE, AttributeJudge
from gptface.evaluation.judged_edits import EDITS, Edit
from gptface.evaluation.saliency import saliency_shares
from gptface.evaluation.sheet import contact_sheet
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.regions import region_cells

ROOT = Path(__file__).parents[2]
LABELS = ["Smiling", "Eyeglasses", "Mouth_Slightly_Open", "Male", "Blond_Hair"]


def picture(seed, size=64):
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six faces; the second smiles, the third picture is damaged."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for row in range(6):
        buffer = io.BytesIO()
        picture(row).save(buffer, "PNG")
        data = buffer.getvalue() if row != 2 else b"no picture"
        labels = {"Smiling": int(row == 1), "Male": row % 2, "Eyeglasses": 0, "Blond_Hair": int(row > 3)}
        rows.append({"image": {"bytes": data, "path": None}, "identity": row, **labels})
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in AttributeJudge(LABELS).state_dict().items()}, path)
    path.with_suffix(".json").write_text(json.dumps({"labels": LABELS}))
    return path


@pytest.fixture(scope="module")
def edit(tiny_checkpoint):
    return pipeline("guided-face-editing", model=str(tiny_checkpoint), num_inference_steps=1)


def options(data, tiny_checkpoint, *more):
    return ["--data", str(data), "--model", str(tiny_checkpoint), "--layout", "aligned", "--json", *map(str, more)]


# --------------------------------------------------------------------------------------------------------------
# editing


def test_the_command_reports_every_arm(data, tiny_checkpoint, judge_file, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    arguments = ["--edit", "smiling", "--limit", 1, "--judge", judge_file, "--sheet", sheet]
    assert main(["evaluate", "editing", *options(data, tiny_checkpoint, *arguments)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 1 and report["edit"] == report["prompt"] == "smiling"
    assert list(report["arms"]) == ["none", "cfg", "itm", "both"]
    for name, arm in report["arms"].items():
        # whether the one face lacks it is a matter of the judge's random weights
        assert arm["success"] is None if not report["lacking"] else 0 <= arm["success"] <= 1
        assert 0 <= arm["side_effect"] <= 1 and arm["lpips"] is None and arm["frechet"] is None
        assert arm["changed_outside"] == 0
        assert arm["seconds"] > 0 and (arm["guidance_kl"] > 0) == (name in ("itm", "both"))
    passes = {name: arm["forward_passes"] for name, arm in report["arms"].items()}
    # the steps (12, or fewer where there are fewer cells), the final match, and what the heads find before and after;
    # ITM guidance reads the grid once more a step, CFG reads both captions in one pass
    steps = passes["none"] - 3
    assert 1 <= steps <= 12
    assert passes == {"none": steps + 3, "cfg": steps + 3, "itm": 2 * steps + 3, "both": 2 * steps + 3}
    assert all(0 <= report["arms"][name]["differs_from_none"] <= 1 for name in ("cfg", "itm", "both"))
    assert all(report["arms"][name]["gain_over_none"] is None for name in ("cfg", "itm", "both")) == (
        not report["lacking"]
    )
    assert Image.open(sheet).size == (128, 6 * 142)


def test_faces_are_the_first_that_lack_the_attribute(data, caplog):
    """A protocol that skipped other faces on the next machine would compare nothing."""
    faces = first_crops(data, 3, 64, {"Smiling": 0}, "aligned")
    for face, row in zip(faces, (0, 3, 4), strict=True):
        assert np.array_equal(np.asarray(face.image), np.asarray(picture(row)))
        assert face.labels["Smiling"] == 0 and "identity" not in face.labels
    assert "00000002" in caplog.text
    assert len(first_crops(data, 100, 64, layout="aligned")) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--limit", "0"], "--limit"),
        (["--arms", "none,magic"], "magic"),
        (["--arms", "none=2"], "none=2"),
        (["--arms", "critic=2"], "critic=2"),
        (["--arms", "itm=much"], "no number"),
        (["--judge", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data", "nowhere.parquet"], "nowhere.parquet"),
        (["--sheet", "sheet.xyz"], "unknown picture format"),
        (["--lpips-weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--edit", "no_hat"], "Wearing_Hat"),
    ],
)
def test_mistakes_are_one_line(data, tiny_checkpoint, judge_file, capsys, changes, message):
    arguments = options(data, tiny_checkpoint, "--edit", "smiling", "--judge", judge_file, *changes)
    assert main(["evaluate", "editing", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err.strip().splitlines()[-1] and output.out == ""


class MarkJudge:
    """Sees Smiling in the red of the first pixel, Eyeglasses in the green, and nothing else."""

    labels = LABELS
    index = AttributeJudge.index

    def probabilities(self, images):
        pixels = np.stack([np.asarray(image)[0, 0] / 255 for image in images])
        return np.concatenate([pixels[:, :2], np.zeros((len(images), len(LABELS) - 2))], 1).astype(np.float32)

    def features(self, images):
        return self.probabilities(images)[:, :2]


def marked(red, green):
    return Image.new("RGB", (8, 8), (round(255 * red), round(255 * green), 0))


def protocol(edit_name, before):
    """A protocol whose encoded-decoded faces are as given."""
    instance = EditingProtocol.__new__(EditingProtocol)
    judge, instance.edit = MarkJudge(), EDITS[edit_name]
    instance.judge, instance.label = judge, judge.index(instance.edit.label)
    excluded = {instance.edit.label, *instance.edit.entailed}
    instance.others = [index for index, label in enumerate(LABELS) if label not in excluded]
    instance.before = judge.probabilities(before)
    return instance


def test_success_needs_the_attribute_to_be_missing_before_and_there_after():
    smiling = protocol("smiling", [marked(0.2, 0), marked(0.2, 0), marked(0.8, 0)])
    after = MarkJudge().probabilities([marked(0.9, 0), marked(0.4, 0), marked(0.9, 0)])
    assert smiling.successes(after).tolist() == [True, False]
    serious = protocol("not_smiling", [marked(0.8, 0), marked(0.8, 0), marked(0.2, 0)])
    after = MarkJudge().probabilities([marked(0.1, 0), marked(0.6, 0), marked(0.1, 0)])
    assert serious.successes(after).tolist() == [True, False]


def reported(before, match=0.0, **arms):
    """The report of arms (name → edited pictures) of "smiling"; `match` of the faces with the prompt."""
    instance = protocol("smiling", before)
    instance.faces = [LabelledCrop(face, {}) for face in before]
    zeros = np.zeros(len(before))
    results = {
        name: ArmResult(images, MarkJudge().probabilities(images), 0, zeros, zeros + match, zeros * np.nan, 1.0, 1.0)
        for name, images in arms.items()
    }
    real = MarkJudge().features([marked(0.9, row / 20) for row in range(20)])
    return instance.report(results, PerceptualDistance(None), real)


def test_faces_that_have_the_attribute_already_do_not_count_against_an_edit():
    """Five of fifteen faces have a beard in the judge's eyes: all five shaved is a success of 1 and not of a third."""
    before = [marked(0.2, 0)] * 5 + [marked(0.8, 0)] * 10
    report = reported(before, none=before, both=[marked(0.9, 0)] * 15)
    assert (report["images"], report["lacking"]) == (15, 5)
    assert report["arms"]["both"]["success"] == 1 and report["arms"]["none"]["success"] == 0
    assert report["arms"]["both"]["gain_over_none"] == {"difference": 1.0, "low": 1.0, "high": 1.0}
    # nothing was drawn that a critic could read
    assert report["arms"]["both"]["realness"] is None


def test_faces_that_an_edit_leaves_alone_have_no_match():
    """A hat on a head that looks aside is refused; the others' figures stay."""
    before = [marked(0.2, 0)] * 3
    some = reported(before, match=np.array([np.nan, 1.0, 3.0]), both=before)["arms"]["both"]
    assert some["match_score"] == 2
    assert reported(before, match=np.nan, both=before)["arms"]["both"]["match_score"] is None


def test_where_nobody_lacks_the_attribute_there_is_no_success():
    before = [marked(0.8, 0)] * 3
    report = json.loads(json.dumps(reported(before, none=before, both=before)))
    assert report["lacking"] == 0 and report["arms"]["both"]["success"] is None
    assert report["arms"]["both"]["gain_over_none"] is None


def test_edits_that_look_like_faces_with_the_attribute_are_near_to_these():
    before = [marked(0.2, row / 20) for row in range(20)]
    near, far = [marked(0.85, row / 20) for row in range(20)], [marked(0.3, 1 - row / 200) for row in range(20)]
    report = reported(before, near=near, far=far)
    distances = [report["arms"][name]["frechet"] for name in ("near", "far")]
    assert distances[0] < 0.01 < report["photo_frechet"] < distances[1] and report["real_images"] == 20
    # of a few faces nothing is said
    assert reported(before[:7], near=near[:7])["arms"]["near"]["frechet"] is None


def test_side_effects_leave_out_what_the_edit_entails():
    smiling = protocol("smiling", [marked(0.2, 0.2)])
    assert [LABELS[index] for index in smiling.others] == ["Eyeglasses", "Male", "Blond_Hair"]
    after = MarkJudge().probabilities([marked(1.0, 0.8)])
    after[0, LABELS.index("Mouth_Slightly_Open")] = 1.0
    assert smiling.side_effect(after) == pytest.approx(0.6 / 3, abs=0.01)


def test_an_arm_edits_with_the_defaults_and_counts_its_cost(edit, judge_file):
    judge = AttributeJudge.from_file(judge_file)
    faces = [LabelledCrop(picture(row), {"Smiling": 0}) for row in range(2)]
    tested = EditingProtocol(edit, judge, EDITS["smiling"], faces)
    arm = tested.run(**ARMS["none"])
    expected = edit(faces[1].image, prompt="smiling", seed=0, aligned=True, guidance_scale=1.0, itm_guidance=0)
    assert np.array_equal(np.asarray(arm.images[1]), np.asarray(expected[0]["image"]))
    # one step and the match, and what the heads find before and after
    assert arm.forward_passes == 4 and arm.changed_outside == 0
    assert not edit.model.gptface._forward_hooks
    codes = edit.model.image_tokenizer.encode(edit.processor(images=[faces[0].image])["pixel_values"])
    decoded = edit.processor.decode_codes(codes, edit.model.image_tokenizer)[0]
    assert np.array_equal(np.asarray(tested.decoded[0]), np.asarray(decoded))


def test_a_changed_pixel_outside_the_mask_is_counted():
    photo, mask = picture(0), np.zeros((64, 64), np.uint8)
    mask[10:20, 10:20] = 255
    edited = np.array(photo)
    edited[10:20, 10:20] = 0
    assert changed_where_masked_out(photo, Image.fromarray(edited), Image.fromarray(mask)) == 0
    edited[30, 30, 2] ^= 1
    assert changed_where_masked_out(photo, Image.fromarray(edited), Image.fromarray(mask)) == 1


def test_a_guidance_that_moved_nothing_shows():
    """Equal figures of two arms may be luck; equal pictures are not, and a reader must be able to tell."""
    faces = [picture(0), picture(1)]
    assert share_that_differs(faces, faces) == 0
    assert share_that_differs(faces, [picture(0), picture(2)]) == 0.5


def test_the_bootstrap_is_paired_and_repeatable():
    treated, control = np.array([1] * 60 + [0] * 40), np.array([1] * 40 + [0] * 60)
    result = paired_bootstrap(treated, control)
    assert result == paired_bootstrap(treated, control) and result["difference"] == pytest.approx(0.2)
    # 20 of 100 pairs differ: sd of the mean = sqrt(0.2·0.8/100) = 0.04
    assert result["low"] == pytest.approx(0.12, abs=0.02) and result["high"] == pytest.approx(0.28, abs=0.02)
    same = paired_bootstrap(control, control)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_arms_with_a_strength():
    assert arm_parameters("itm=0.5") == {"guidance_scale": 1.0, "itm_guidance": 0.5}
    assert arm_parameters("both") == {}
    weighted = arm_parameters("real=2")
    assert weighted["itm_guidance"] == {"step_size": 4.0, "critic_weight": 2.0} and weighted["plan_first"]
    assert arm_parameters("real")["itm_guidance"]["critic_weight"] not in (0, 2)


def test_the_table_of_edits_speaks_of_attributes_that_exist():
    known = json.loads(DEFAULT_JUDGE.with_suffix(".json").read_text())["labels"]
    for name, entry in EDITS.items():
        assert entry.label in known and set(entry.entailed) <= set(known), name
        assert entry.label not in entry.entailed and entry.wanted in (0, 1)
        # the prompt is the phrase that captions of the wanted faces were made of
        assert entry.prompt == phrase_for(entry.label, entry.wanted), name
    assert EDITS["smiling"] == Edit("smiling", "Smiling", 1, ("Mouth_Slightly_Open", "High_Cheekbones", "Narrow_Eyes"))


# ----------------------------------------------------------------------------------------------------------------
# judge


def test_the_judge_that_comes_along_opens_and_is_small():
    judge = AttributeJudge.from_file()
    assert len(judge.labels) == 40 and DEFAULT_JUDGE.stat().st_size < 1.5e6
    probabilities = judge.probabilities([picture(0), picture(1, 128)])
    assert probabilities.shape == (2, 40) and (probabilities >= 0).all() and (probabilities <= 1).all()
    assert judge.probabilities([]).shape == (0, 40)
    features = judge.features([picture(0), picture(1, 128)])
    logits = judge.head(torch.from_numpy(features))
    assert np.allclose(logits.sigmoid().detach().numpy(), probabilities, atol=1e-6)


def test_a_portrait_of_a_clean_shaven_man_is_judged_so():
    """Of a public-domain portrait only the crop's rough place is known: the judge must not be thrown by that."""
    cv2 = pytest.importorskip("cv2")
    assert cv2
    edit = pipeline("guided-face-editing")
    face = edit.find_faces(Image.open(ROOT / "examples" / "portrait.jpg"))[0].crop
    judge = AttributeJudge.from_file()
    scores = dict(zip(judge.labels, judge.probabilities([face])[0], strict=True))
    assert scores["Wearing_Hat"] < 0.5 and scores["Bald"] < 0.5


def test_the_judge_takes_no_part_in_the_product():
    """It would no longer be independent: only the protocols and its training may know it."""
    for folder in ("gptface", "modeling_gptface", "pipelines", "processing", "training", "conversion"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"evaluation[./]judge|AttributeJudge", file.read_text()), file


def test_damaged_judges_are_named(tmp_path, judge_file):
    path = tmp_path / "judge.safetensors"
    path.write_bytes(judge_file.read_bytes()[:500])
    with pytest.raises(FileNotFoundError, match=r"judge\.json"):
        AttributeJudge.from_file(path)
    path.with_suffix(".json").write_text(json.dumps({"labels": LABELS}))
    with pytest.raises(OSError, match="truncated or damaged"):
        AttributeJudge.from_file(path)
    path.write_bytes(judge_file.read_bytes())
    path.with_suffix(".json").write_text(json.dumps({"labels": LABELS[:2]}))
    with pytest.raises(ValueError, match="do not hold a judge"):
        AttributeJudge.from_file(path)
    with pytest.raises(ValueError, match="does not know 'Hat'"):
        AttributeJudge(LABELS).index("Hat")


# -------------------------------------------------------------------------------------------------------------
# captions


def test_captions_are_read_back():
    for attribute, values in PHRASES.items():
        for value, phrases in values.items():
            assert (attribute, value) in stated_attributes(phrases.canonical), phrases.canonical
    caption = "A smiling woman, without glasses; she has no beard and blond hair"
    expected = {("Smiling", 1), ("Male", 0), ("Eyeglasses", 0), ("No_Beard", 1), ("Blond_Hair", 1)}
    assert stated_attributes(caption) == expected
    assert stated_attributes("a photo of a person") == set()


def test_f1_counts_statements_and_what_is_there():
    labels = [{"Smiling": 1, "Male": 1, "Eyeglasses": 0}, {"Smiling": 0, "Male": 0, "Eyeglasses": 1}]
    stated = [{("Smiling", 1), ("Eyeglasses", 1)}, {("Smiling", 0), ("Eyeglasses", 1), ("Bald", 1)}]
    # three of four judged statements are true (nobody knows about Bald); two of three attributes are named
    figures = attribute_f1(stated, labels)
    assert figures["precision"] == pytest.approx(3 / 4) and figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert attribute_f1([set()], labels[:1]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_agreement_is_that_of_the_judge():
    images = [marked(0.9, 0.1), marked(0.1, 0.9)]
    mentions = [{"Smiling": 1, "Eyeglasses": 0}, {"Smiling": 0, "Eyeglasses": 0, "Unknown": 1}]
    figures = agreement_figures(MarkJudge(), images, mentions)
    assert figures == {"agreement": 0.75, "agreement_moved": 0.25, "attributes": 4}


@pytest.fixture
def bars(monkeypatch):
    """What the bars are called that are shown, and how far each went: {name: faces}."""
    shown = {}

    class Bar(tqdm):
        def __init__(self, items, desc, **options):
            super().__init__(items, desc=desc, **options | {"disable": False, "file": io.StringIO()})

        def close(self):
            shown[self.desc] = self.n
            super().close()

    monkeypatch.setattr("gptface.evaluation.progress.tqdm", Bar)
    return shown


@pytest.mark.parametrize("kind", ["generation", "caption", "saliency"])
def test_the_other_kinds_print_their_figures(kind, data, tiny_checkpoint, judge_file, capsys, bars):
    arguments = options(data, tiny_checkpoint, "--limit", 2)
    if kind == "generation":
        arguments += ["--judge", str(judge_file)]
    assert main(["evaluate", kind, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 2
    expected = {
        "generation": {"agreement", "agreement_moved", "lpips_between_seeds"},
        "caption": {"guided", "unguided"},
        "saliency": {"smiling", "eyeglasses", "blond hair"},
    }[kind]
    assert expected <= set(report)
    assert bars and set(bars.values()) == {1 if kind == "saliency" else 2}, "a bar of the faces, or of their one batch"


# ----------------------------------------------------------------------------------------------------------------
# holes


@pytest.mark.parametrize("kind", ["inpaint", "unmask"])
def test_holes_are_filled_beside_the_baselines(kind, data, tiny_checkpoint, capsys, bars):
    pytest.importorskip("cv2")
    assert main(["evaluate", kind, *options(data, tiny_checkpoint, "--limit", 2)]) == 0
    report = json.loads(capsys.readouterr().out)
    for name in ("rectangles", "scratches") if kind == "inpaint" else ("lower_face",):
        assert set(report[name]) == {"model", "opencv", "mean_face"}
        assert report[name]["model"]["changed_outside"] == 0
        assert all(0 < way["psnr"] < 60 for way in report[name].values())
        assert bars[name.replace("_", " ")] == 2


@pytest.fixture(scope="module")
def parsed_data(tmp_path_factory):
    """Three faces all of skin, with masks of their parts."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for row in range(3):
        files = [io.BytesIO(), io.BytesIO()]
        picture(row, 256).save(files[0], "PNG")
        Image.new("L", (256, 256), 1).save(files[1], "PNG")
        rows.append({name: file.getvalue() for name, file in zip(("image", "mask"), files, strict=True)})
    path = tmp_path_factory.mktemp("parsed") / "faces.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_masks_that_are_worn_are_compared_with_what_they_hid(parsed_data, lpips_file, monkeypatch, capsys, bars):
    """Of a model that finds no mask, or takes it off without a flaw, the figures say so."""
    pytest.importorskip("cv2")
    bare, asked = [picture(row, 256) for row in range(3)], []

    def perfect(photo, **options):
        asked.append(options)
        mask = Image.fromarray(np.uint8(255 * (np.asarray(photo) != np.asarray(bare[len(asked) - 1])).any(-1)))
        return [{"image": bare[len(asked) - 1], "mask": mask}]

    def blind(photo, **options):
        return [{"image": photo, "mask": Image.new("L", photo.size)}]

    command = ["evaluate", "unmask", "--face-masks", "--data", str(parsed_data), "--limit", "3", "--json"]
    reports = []
    for model in (perfect, blind):
        monkeypatch.setattr(inpainting, "load_pipeline", lambda task, name, model=model: model)
        assert main([*command, "--lpips-weights", str(lpips_file)]) == 0
        reports.append(json.loads(capsys.readouterr().out)["worn"])
    best, worst = (report["model"] for report in reports)
    assert asked[0]["prompt"] == "remove the mask" and bars["worn masks"] == 3
    assert (best["found"], worst["found"]) == (1, 0)
    assert best["psnr"] > 90 and best["lpips"] == pytest.approx(0, abs=1e-6) and best["delta_e"] < 1e-6
    assert worst["psnr"] < 30 and worst["lpips"] > best["lpips"] and worst["seam_lpips"] > 0 < worst["delta_e"]
    assert reports[0]["opencv"] == reports[1]["opencv"]


@pytest.mark.parametrize("name", sorted(HOLES))
def test_holes_are_fixed_and_leave_most_of_the_face(name):
    make_hole, colour = HOLES[name]
    holes = [make_hole(128, row, 0) for row in range(20)]
    assert all(0.005 < hole.mean() < 0.4 for hole in holes)
    assert np.array_equal(holes[3], make_hole(128, 3, 0))
    assert name == "lower_face" or not np.array_equal(holes[3], holes[4])
    face = picture(0, 128)
    covered = np.asarray(cover(face, holes[0], colour))
    assert (covered[holes[0]] == colour).all() and np.array_equal(covered[~holes[0]], np.asarray(face)[~holes[0]])


def test_the_mean_face_is_that_of_the_others():
    """With the face itself in the mean, the baseline would know the answer."""
    faces = [Image.new("RGB", (4, 4), (value,) * 3) for value in (0, 100, 200)]
    hole = np.zeros((4, 4), bool)
    hole[1, 1] = True
    filled = np.asarray(mean_face_fill(faces, 0, hole))
    assert filled[1, 1].tolist() == [150] * 3 and filled.sum() == 450
    with pytest.raises(ValueError, match="at least two"):
        mean_face_fill(faces[:1], 0, hole)


def test_psnr_looks_into_the_hole_only():
    target, hole = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    hole[0] = True
    given = target.copy()
    given[0], given[1:] = 255, 77
    assert psnr(given, target, hole) == pytest.approx(0.0)


def test_without_weights_there_is_no_lpips():
    assert PerceptualDistance(None).mean([picture(0)], [picture(1)]) is None


def test_shares_of_the_gradient_are_shares(edit):
    faces = [LabelledCrop(picture(row), {}) for row in range(3)]
    report = saliency_shares(edit, faces, batch_size=2)
    alone = saliency_shares(edit, faces[:1])
    assert set(report) == {"smiling", "eyeglasses", "blond hair"}
    for prompt, entry in report.items():
        assert 0 < entry["area"] < 1 and 0 < entry["share"] < 1 and 0 < entry["share_with_source"] < 1
        assert entry["area"] == alone[prompt]["area"] and entry["share"] != alone[prompt]["share"]


def test_where_the_plan_is_drawn_first_the_gradient_is_that_of_the_plan(planned_checkpoint, monkeypatch):
    """The figure is about what edits go by: neither it nor a share of an area may look at the fine grid instead."""
    edit = load_pipeline("guided-face-editing", str(planned_checkpoint))
    tokens, seen = edit.model.config.num_plan_tokens, []
    saliency = edit.model.saliency
    monkeypatch.setattr(
        edit.model, "saliency", lambda codes, *rest, **more: seen.append(codes) or saliency(codes, *rest, **more)
    )
    report = saliency_shares(edit, [LabelledCrop(picture(row), {}) for row in range(2)])
    assert report["smiling"]["area"] == region_cells("smile", edit.model.config.plan_grid_size).mean()
    assert all(0 < entry["share"] < 1 for entry in report.values())
    options = {"aligned": True, "seed": 0, "force": True, "num_inference_steps": 2}
    for area in ({"region": "auto"}, {"region": "face", "strength": 0.4}):
        edit(picture(0), "smiling", **area, **options)
    assert seen and all(codes.shape[1] == tokens for codes in seen)
    count = len(seen)
    edit(picture(0), "smiling", region="auto", plan_first=False, **options)
    assert [codes.shape[1] for codes in seen[count:]] == [edit.model.config.num_image_tokens]


def test_a_contact_sheet_has_a_row_for_each_name():
    sheet = contact_sheet({"photo": [picture(0)] * 12, "edited": [picture(1)] * 12})
    assert sheet.size == (10 * 128, 2 * 2 * 142)
