"""An edited picture must say so to whoever gets the file, whatever the prompt, unless its maker turned that off."""

import xml.etree.ElementTree as ET

import pytest
from PIL import Image
from transformers import pipeline

from gptface import save_picture
from gptface.cli import main
from gptface.processing.provenance import EDITED, INFO_KEY, mark

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
DESCRIPTION = {
    "software": "GPTFace 1.2",
    "model": "user/name",
    "revision": "0123456789abcdef",
    "prompt": "smiling",
    "digital_source_type": EDITED,
}


def properties(path) -> dict[str, str]:
    """The XMP properties of a picture file, by their name without the namespace."""
    packet = Image.open(path).info["xmp"]
    text = packet if isinstance(packet, str) else packet.decode()
    description = ET.fromstring(text.split("?>", 1)[1].rsplit("<?", 1)[0])[0][0]
    return {element.tag.split("}")[1]: element.text or "" for element in description}


def marked(mode: str = "RGB", **changes) -> Image.Image:
    image = Image.new(mode, (8, 6), 120)
    mark(image, {**DESCRIPTION, **changes}, seed=7)
    return image


@pytest.mark.parametrize("name", ["edited.png", "edited.jpg", "edited.webp", "EDITED.JPEG"])
def test_the_file_says_what_made_it(tmp_path, name):
    save_picture(marked("RGBA" if name.endswith(("png", "webp")) else "RGB"), tmp_path / name)
    assert properties(tmp_path / name) == {
        "CreatorTool": "GPTFace 1.2",
        "DigitalSourceType": COMPOSITE,
        "AISystemUsed": "GPTFace user/name",
        "AISystemVersionUsed": "0123456789abcdef",
        "AIPromptInformation": "smiling",
        "seed": "7",
    }


def test_a_png_names_its_software_in_a_text_chunk_too(tmp_path):
    save_picture(marked(), tmp_path / "edited.png")
    assert Image.open(tmp_path / "edited.png").text["Software"] == "GPTFace 1.2"


@pytest.mark.parametrize("prompt", ['<b> & "quotes" ]]> ?>', "höchst 微笑 😀", "tab\tline\nend", "x" * 90_000])
def test_any_prompt_can_be_written(tmp_path, prompt):
    """A prompt must not break the packet, nor outgrow what a JPEG can hold."""
    save_picture(marked(prompt=prompt), tmp_path / "edited.jpg")
    assert properties(tmp_path / "edited.jpg")["AIPromptInformation"] == prompt[:4000]


def test_what_xml_cannot_hold_is_replaced(tmp_path):
    save_picture(marked(prompt="a\x00b\x1b\ud800c\uffff"), tmp_path / "edited.png")
    assert properties(tmp_path / "edited.png")["AIPromptInformation"] == "a\ufffdb\ufffd\ufffdc\ufffd"


@pytest.mark.parametrize("name", ["edited.png", "edited.jpg", "edited.webp"])
def test_it_can_be_turned_off(tmp_path, name):
    save_picture(marked(), tmp_path / name, provenance=False)
    assert not {"xmp", "Software"} & set(Image.open(tmp_path / name).info)


def test_resized_and_converted_pictures_keep_it(tmp_path):
    save_picture(marked().resize((4, 4)).convert("L").crop((0, 0, 2, 2)), tmp_path / "small.png")
    assert properties(tmp_path / "small.png")["DigitalSourceType"] == COMPOSITE


def test_other_pictures_and_formats_are_written_as_ever(tmp_path):
    save_picture(Image.new("RGB", (4, 4)), tmp_path / "plain.jpg")
    save_picture(marked(), tmp_path / "edited.bmp")
    assert "xmp" not in Image.open(tmp_path / "plain.jpg").info
    assert Image.open(tmp_path / "edited.bmp").size == (8, 6)


@pytest.fixture(scope="module")
def edit(tiny_checkpoint):
    return pipeline("guided-face-editing", model=str(tiny_checkpoint))


def test_every_candidate_is_marked_with_its_own_seed(edit, face_picture, tiny_checkpoint):
    results = edit(
        face_picture, prompt="smiling", seed=3, aligned=True, num_images_per_prompt=2, num_inference_steps=1
    )
    for result in results:
        for picture in (result["image"], result["face"]):
            provenance = picture.info[INFO_KEY]
            assert (provenance["prompt"], provenance["seed"]) == ("smiling", result["seed"])
            # not the path: it names the user's folders
            assert provenance["model"] == tiny_checkpoint.name and len(provenance["revision"]) == 16
    assert INFO_KEY not in face_picture.info


def test_the_revision_is_that_of_the_weights(edit, face_picture):
    def revision() -> str:
        result = edit(face_picture, prompt="smiling", seed=0, aligned=True, num_inference_steps=1)[0]
        return result["image"].info[INFO_KEY]["revision"]

    before, weight = revision(), edit.model.lm_head.image_bias
    assert revision() == before
    weight.data += 1
    changed = revision()
    weight.data -= 1
    assert changed != before


def test_generated_faces_are_not_called_edited(tiny_checkpoint, tmp_path):
    make = pipeline("text-to-face", model=str(tiny_checkpoint))
    result = make("a smiling woman", seed=1, num_inference_steps=1)[0]
    save_picture(result["image"], tmp_path / "face.png")
    assert properties(tmp_path / "face.png")["DigitalSourceType"] == GENERATED


@pytest.mark.parametrize("option", [[], ["--no-provenance"]])
def test_the_command_line_marks_unless_told_not_to(tiny_checkpoint, face_picture, tmp_path, option, capsys):
    face_picture.save(tmp_path / "face.png")
    arguments = [
        str(tmp_path / "face.png"),
        "smiling",
        "-o",
        str(tmp_path / "edited.png"),
        "--aligned",
        "--steps",
        "1",
    ]
    assert main(["edit", *arguments, "--model", str(tiny_checkpoint), *option]) == 0
    assert ("xmp" in Image.open(tmp_path / "edited.png").info) == (not option)
