"""
The page to edit faces on: `gptface demo` and, as a file of its own, the app of a Space (`gptface export --space OUT`).

What it does stands in plain functions and classes, which know nothing of the page; [`build_page`] alone needs Gradio.
"""

import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gptface.modeling_gptface.guidance import GuidanceError
from gptface.pipelines.edit_verification import changes_in_words
from gptface.pipelines.face_classification import FaceAttributeClassificationPipeline, FacialExpressionPipeline
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.detection import FaceNotFoundError
from gptface.processing.edits import list_edits
from gptface.processing.image_loading import load_image
from gptface.processing.image_saving import save_picture
from gptface.processing.prompt_reading import UnknownEditError, read_prompt
from gptface.processing.regions import REGIONS

#: Bytes of an upload, pixels of the photo that is worked on, versions of it that are kept, and edits that may wait.
MAX_UPLOAD_BYTES, MAX_PIXELS, MAX_VERSIONS, MAX_WAITING = 20 * 2**20, 6_000_000, 10, 16
#: Of one edit; a request need not come from the page, whose fields are bounded.
MAX_CANDIDATES, MAX_PROMPT = 8, 400
#: Seconds after which what a visitor made is deleted.
KEPT_SECONDS = 3600
#: Longest side in pixels of the picture that is painted on.
PAINTED_SIDE = 1024
#: Attributes that are told of a face.
ATTRIBUTES_SHOWN = 6
QUALITY = {"good": "works well", "fair": "works fairly well", "experimental": "experimental"}
#: Errors that a visitor can mend.
VISITOR_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, GuidanceError)


def understood(prompt: str) -> str:
    """What a prompt is read as, in Markdown: the edits with what may be expected of them, or the nearest ones."""
    if not prompt.strip():
        return ""
    if len(prompt) > MAX_PROMPT:
        return f"Say it in {MAX_PROMPT} characters."
    try:
        reading = read_prompt(prompt)
    except UnknownEditError as error:
        return f"No edit that is known. Did you mean {' or '.join(f'**{phrase}**' for phrase in error.nearest)}?"
    except ValueError as error:
        return str(error)
    lines = [
        f"**{intent.phrase}** ({QUALITY[intent.edit.quality]}): {intent.edit.sentence}" for intent in reading.intents
    ]
    lines += [f"Read “{written}” as “{read}”." for written, read in reading.corrected]
    if reading.ignored:
        lines.append(f"Not understood: {', '.join(f'“{word}”' for word in reading.ignored)}.")
    return "  \n".join(lines)


def message_of(error: Exception) -> str:
    """An error in words for who looks at a page, where there are no parameters."""
    if isinstance(error, FaceNotFoundError):
        return "No face was found. Take a photo in which a face looks about to the camera and is not too small."
    if isinstance(error, UnknownEditError):
        return f"No edit that is known. Did you mean {' or '.join(f'“{phrase}”' for phrase in error.nearest)}?"
    return str(error) or type(error).__name__


def open_photo(path: str | Path) -> tuple[Image.Image, str]:
    """
    An uploaded file → the photo, upright and of no more than `MAX_PIXELS` pixels, and what should be told of that
    (empty: nothing).

    Raises:
        ImageInputError: no picture that can be read.
        ValueError: a file of more than `MAX_UPLOAD_BYTES`.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_UPLOAD_BYTES + 1)
    if len(data) > MAX_UPLOAD_BYTES:
        raise ValueError(f"The file has more than {MAX_UPLOAD_BYTES >> 20} MB: make it smaller first.")
    photo = load_image(data, name="the file")
    pixels = photo.width * photo.height
    if pixels <= MAX_PIXELS:
        return photo, ""
    scale = (MAX_PIXELS / pixels) ** 0.5
    size = (int(photo.width * scale), int(photo.height * scale))
    remark = (
        f"This page works on {size[0]}×{size[1]} pixels, not on all {photo.width}×{photo.height}: `gptface edit` does."
    )
    return photo.resize(size, Image.Resampling.LANCZOS), remark


def painted_area(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """
    What was painted → a mask of the photo, mode `"L"`, white where it may change.

    Args:
        layers: of the painter, with transparency where nothing is painted.
        size: (width, height) of the photo.

    Raises:
        ValueError: nothing is painted.
    """
    painted = [np.asarray(layer.convert("RGBA"))[:, :, 3] > 0 for layer in layers]
    if not any(each.any() for each in painted):
        raise ValueError("Nothing is painted: paint over what may change, or let the edit decide.")
    return Image.fromarray(np.any(painted, axis=0).astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Version:
    """
    The photo as it is after some edits.

    Args:
        image: the picture.
        path: its file, which says how it was made.
        title: what was done last.
        caption: what it shows, in few words.
        crop: the face that was edited.
    """

    image: Image.Image
    path: Path
    title: str
    crop: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class History:
    """
    The versions of one photo, the upload first, of which one is seen.

    Args:
        folder: of their files.
        versions: at most `MAX_VERSIONS`; the upload stays.
        position: of the one that is seen.
        proposals: the candidates of the last edit, best first, while it is seen.
    """

    folder: Path
    versions: tuple[Version, ...]
    position: int = 0
    proposals: tuple[Version, ...] = field(default=())

    @property
    def current(self) -> Version:
        return self.versions[self.position]

    def edited(self, proposals: Sequence[Version]) -> "History":
        """With a new version, the first of the proposals, behind the one that is seen; what was undone is gone."""
        kept = self.versions[: self.position + 1]
        kept = kept[:1] + kept[1:][-(MAX_VERSIONS - 2) :]
        return History(self.folder, (*kept, proposals[0]), len(kept), tuple(proposals))

    def chosen(self, index: int) -> "History":
        """With another proposal as the version that is seen."""
        return replace(self, versions=(*self.versions[: self.position], self.proposals[index]))

    def moved(self, steps: int) -> "History":
        """Back (-1) or forth (1), as far as there are versions."""
        position = min(max(self.position + steps, 0), len(self.versions) - 1)
        return self if position == self.position else replace(self, position=position, proposals=())

    def forget(self) -> None:
        """Deletes the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Wish:
    """
    What a visitor asks for.

    Args:
        prompt: the edit in words.
        face: its number, 0 the largest.
        strength: share of the area that is redrawn, in (0, 1].
        seed: of the first candidate.
        candidates: how many are drawn to choose from.
        regions: names of regions that may change; none: the edit decides.
        mask: white where the photo may change; None: the edit or the regions decide.
        force: whether a face is edited that is so already.
    """

    prompt: str
    face: int = 0
    strength: float = 1.0
    seed: int = 0
    candidates: int = 1
    regions: tuple[str, ...] = ()
    mask: Image.Image | None = None
    force: bool = False


class PhotoEditor:
    """
    The pipelines behind the page, which share one model.

    ```python
    editor = PhotoEditor()
    history, faces, _ = editor.open("portrait.jpg")
    history, _ = editor.edit(history, Wish("smiling"))
    history.current.path  # the edited file
    ```

    Args:
        model: folder or Hub name of a checkpoint; the embedded one by default.
        aligned: photos are aligned face crops already, and are not searched for faces.
    """

    def __init__(self, model: str | None = None, aligned: bool = False):
        self.pipe = load_pipeline("guided-face-editing", model)
        parts = {"model": self.pipe.model, "processor": self.pipe.processor}
        self.attributes = FaceAttributeClassificationPipeline(**parts)
        self.expression = FacialExpressionPipeline(**parts)
        self.aligned = aligned

    def open(self, path: str | Path) -> tuple[History, list[Image.Image], str]:
        """
        An uploaded file → its history, the crops of its faces, largest first, and a remark.

        Raises:
            ValueError: no picture, or no face in it.
        """
        photo, remark = open_photo(path)
        crops = [face.crop for face in self.pipe.find_faces(photo, "all", aligned=self.aligned)]
        folder = Path(tempfile.mkdtemp(prefix="gptface-"))
        suffix = Path(path).suffix.lower()
        # the ending of all versions: a PNG keeps every pixel, but of a photo that is a JPEG anyway a JPEG is quicker
        name = f"0{suffix if suffix in ('.jpg', '.jpeg', '.webp') else '.png'}"
        save_picture(photo, folder / name)
        return History(folder, (Version(photo, folder / name, "your photo", crops[0]),)), crops, remark

    def describe(self, crop: Image.Image) -> str:
        """Expression of an aligned face, and those of its attributes that an edit is about, in Markdown."""
        found = self.attributes(crop, aligned=True, threshold="auto")
        (expression,) = self.expression(crop, aligned=True, top_k=1)
        told = {edit.target.label for edit in list_edits() if edit.target is not None}
        found = [each for each in found if each["label"] in told][:ATTRIBUTES_SHOWN]
        names = [f"{each['label'].replace('_', ' ').lower()} {each['score']:.0%}" for each in found]
        return f"Expression: **{expression['label']}** {expression['score']:.0%}  \n" + ", ".join(names)

    def edit(
        self, history: History, wish: Wish, on_step: Callable[[int, int], None] | None = None
    ) -> tuple[History, str]:
        """
        Edits the version that is seen → the history with a new one, and why a part or all of it was not done
        (empty: all was).

        Args:
            on_step: called with (steps done, all steps) while it is drawn.

        Raises:
            ValueError: a wish that makes no sense; the message says what would.
        """

        if len(wish.prompt) > MAX_PROMPT or wish.candidates > MAX_CANDIDATES:
            raise ValueError(
                f"No more than {MAX_PROMPT} characters and {MAX_CANDIDATES} candidates are taken at once."
            )

        def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step is not None:
                on_step(step + 1, step + 1 + timestep)
            return {}

        before = history.current
        results = self.pipe(
            before.image,
            prompt=wish.prompt,
            face=wish.face,
            aligned=self.aligned,
            strength=wish.strength,
            seed=wish.seed,
            num_images_per_prompt=wish.candidates,
            region=list(wish.regions) or None,
            mask_image=wish.mask,
            force=wish.force,
            callback_on_step_end=on_step_end,
        )
        note = results[0]["note"]
        reasons = [part for part in (note or "").split("; ") if "=True" not in part]
        remark = f"{', '.join(reasons)}. " if note else ""
        remark += "Tick “edit it all the same” to have it anyway." if "force=True" in (note or "") else ""
        if results[0]["match_score"] is None:
            return history, remark
        proposals = []
        for result in results:
            # a name of its own for each picture: browsers keep what they have seen under a name
            path = Path(tempfile.mkstemp(suffix=before.path.suffix, dir=history.folder)[1])
            save_picture(result["image"], path)
            told = ", ".join([f"match {result['match_score']:+.1f}", *changes_in_words(result["verified"])])
            shown = [f"{name.replace('_', ' ')} {each['after']:.0%}" for name, each in result["verified"].items()]
            caption = ", ".join(shown) or f"match {result['match_score']:+.1f}"
            proposals.append(Version(result["image"], path, told, result["face"], caption))
        return history.edited(proposals), remark


def require_gradio() -> Any:
    """The module `gradio`. Raises `ImportError` with what to install where it is missing."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError('the page needs Gradio: pip install "gptface[demo]"') from error
    return gradio


def build_page(editor: PhotoEditor) -> Any:
    """
    The page, as a `gradio.Blocks`; [`launch`] serves it.

    Raises:
        ImportError: Gradio is missing.
    """
    gradio = require_gradio()
    phrases = [
        (f"{edit.phrase} ({QUALITY[edit.quality]})", edit.phrase) for edit in list_edits() if edit.kind != "fill"
    ]

    def shown(function: Callable[..., Any]) -> Callable[..., Any]:
        """A handler whose errors are messages on the page."""

        @functools.wraps(function)  # Gradio reads its parameters
        def handler(*values: Any) -> Any:
            try:
                return function(*values)
            except VISITOR_ERRORS as error:
                raise gradio.Error(message_of(error), print_exception=False) from None

        return handler

    def seen(history: History | None, status: str = "") -> tuple[Any, ...]:
        """What all that happens to a history shows of it: the values of `display`."""
        if history is None:
            return None, None, gradio.update(value=[], visible=False), *[gradio.update(interactive=False)] * 3, "", ""
        done = [version.title for version in history.versions[1 : history.position + 1]]
        proposals = [(str(each.path), each.caption) for each in history.proposals]
        return (
            history,
            (str(history.versions[0].path), str(history.current.path)),
            gradio.update(value=proposals, visible=len(proposals) > 1, selected_index=None),
            gradio.update(interactive=history.position > 0),
            gradio.update(interactive=history.position + 1 < len(history.versions)),
            gradio.update(value=str(history.current.path), interactive=history.position > 0),
            editor.describe(history.current.crop),
            status or (f"{len(done)}. {done[-1]}" if done else ""),
        )

    def open_upload(path: str | None, old: History | None) -> tuple[Any, ...]:
        if old is not None:
            old.forget()
        if path is None:
            return *seen(None), gradio.update(value=[], visible=False), 0, None
        history, crops, remark = editor.open(path)
        numbered = [(crop, f"face {number}") for number, crop in enumerate(crops, 1)]
        faces = gradio.update(value=numbered, visible=len(crops) > 1, selected_index=0)
        return *seen(history, remark), faces, 0, None

    def edit(
        history: History | None,
        prompt: str,
        face: int,
        strength: float,
        seed: float | None,
        candidates: int,
        area: str,
        regions: list[str],
        painting: dict[str, Any] | None,
        force: bool,
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        if history is None:
            raise ValueError("Choose a photo first.")
        mask = None
        if area == "painted":
            mask = painted_area((painting or {}).get("layers") or (), history.current.image.size)
        if area == "regions" and not regions:
            raise ValueError("Choose at least one part of the face, or let the edit decide.")
        wish = Wish(
            prompt,
            face,
            strength,
            int(seed or 0),
            int(candidates),
            tuple(regions) if area == "regions" else (),
            mask,
            force,
        )
        progress(0, desc="looking at the face")
        history, status = editor.edit(history, wish, lambda done, steps: progress((done, steps), desc="drawing"))
        return seen(history, status)

    def choose_face(history: History | None, event: gradio.SelectData) -> tuple[int, str]:  # type: ignore[name-defined]
        if history is None:
            raise gradio.Error("Choose a photo first.")
        crops = [face.crop for face in editor.pipe.find_faces(history.current.image, "all", aligned=editor.aligned)]
        index = min(event.index, len(crops) - 1)
        return index, editor.describe(crops[index])

    def choose_proposal(history: History, event: gradio.SelectData) -> tuple[Any, ...]:  # type: ignore[name-defined]
        return seen(history.chosen(event.index))

    def show_area(area: str, history: History | None) -> tuple[Any, Any]:
        background = None
        if area == "painted" and history is not None:
            background = history.current.image.convert("RGB")
            background.thumbnail((PAINTED_SIDE, PAINTED_SIDE))
        painting = {"background": background, "layers": [], "composite": None} if background is not None else None
        return gradio.update(visible=area == "regions"), gradio.update(visible=area == "painted", value=painting)

    with gradio.Blocks(
        title="GPTFace", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 2, KEPT_SECONDS)
    ) as page:
        history = gradio.State(
            time_to_live=KEPT_SECONDS, delete_callback=lambda kept: kept.forget() if kept is not None else None
        )
        face = gradio.State(0)
        gradio.Markdown(
            "# GPTFace\nEdit a face in a photo. What is saved says that it is edited. "
            "Edit people who agree to it, and deceive nobody."
        )
        with gradio.Row():
            with gradio.Column(min_width=320):
                upload = gradio.Image(
                    label="Photo", type="filepath", sources=["upload", "clipboard"], height=320, elem_id="upload"
                )
                # Gradio would say of a damaged file no more than "Error"; `open_photo` says what is wrong with it.
                upload.preprocess = lambda payload: payload and payload.path
                faces = gradio.Gallery(
                    label="Faces: choose one",
                    columns=4,
                    height=130,
                    visible=False,
                    allow_preview=False,
                    elem_id="faces",
                )
                about = gradio.Markdown(elem_id="about")
                prompt = gradio.Textbox(
                    label="What should change",
                    placeholder="make her smile, without glasses",
                    max_length=MAX_PROMPT,
                    elem_id="prompt",
                )
                reading = gradio.Markdown(elem_id="understood")
                listed = gradio.Dropdown(phrases, label="or choose", value=None, elem_id="listed")
                with gradio.Accordion("Where, how much, which", open=False, elem_id="more"):
                    area = gradio.Radio(
                        [("the edit decides", "edit"), ("parts of the face", "regions"), ("I paint it", "painted")],
                        value="edit",
                        label="What may change",
                        elem_id="area",
                    )
                    names = [(name.replace("_", " "), name) for name in REGIONS]
                    regions = gradio.Dropdown(names, multiselect=True, visible=False, label="Parts of the face")
                    painting = gradio.ImageEditor(
                        label="Paint",
                        type="pil",
                        sources=(),
                        transforms=(),
                        layers=False,
                        brush=gradio.Brush(colors=["#ff3d9a"], color_mode="fixed"),
                        visible=False,
                        elem_id="painting",
                    )
                    strength = gradio.Slider(0.1, 1, 1, step=0.1, label="Strength")
                    candidates = gradio.Slider(1, MAX_CANDIDATES, 1, step=1, label="Candidates", elem_id="candidates")
                    seed = gradio.Number(0, precision=0, minimum=0, maximum=2**31, label="Seed")
                    force = gradio.Checkbox(False, label="Edit it all the same where the face is so already")
                start = gradio.Button("Edit", variant="primary", elem_id="edit")
            with gradio.Column(min_width=320):
                slider = gradio.ImageSlider(
                    label="Before and after", type="filepath", interactive=False, max_height=640, elem_id="slider"
                )
                status = gradio.Markdown(elem_id="status")
                with gradio.Row():
                    undo = gradio.Button("Undo", interactive=False, min_width=80, elem_id="undo")
                    redo = gradio.Button("Redo", interactive=False, min_width=80, elem_id="redo")
                    save = gradio.DownloadButton("Save", interactive=False, min_width=80, elem_id="save")
                proposals = gradio.Gallery(
                    label="Candidates: choose one",
                    columns=3,
                    height="auto",
                    visible=False,
                    allow_preview=False,
                    elem_id="proposals",
                )

        display = [history, slider, proposals, undo, redo, save, about, status]
        upload.change(shown(open_upload), [upload, history], [*display, faces, face, painting])
        faces.select(shown(choose_face), history, [face, about])
        prompt.input(understood, prompt, reading, show_progress="hidden", queue=False, trigger_mode="always_last")
        listed.input(lambda phrase: (phrase, understood(phrase)), listed, [prompt, reading], queue=False)
        area.change(show_area, [area, history], [regions, painting])
        wishes = [history, prompt, face, strength, seed, candidates, area, regions, painting, force]
        gradio.on([start.click, prompt.submit], shown(edit), wishes, display, show_progress_on=[slider])
        proposals.select(shown(choose_proposal), history, display)
        undo.click(lambda kept: seen(kept.moved(-1)), history, display, show_progress="hidden")
        redo.click(lambda kept: seen(kept.moved(1)), history, display, show_progress="hidden")
    return page


def launch(
    editor: PhotoEditor,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    open_browser: bool = False,
    block: bool = True,
) -> Any:
    """
    Serves the page.

    Args:
        host: address to listen at; by default that of Gradio: this machine alone, or on a Space what the Space says.
        share: whether Gradio's servers make it reachable from anywhere.
        block: whether to stay until it is stopped; without, the page is given back at once, and ends by its `close()`.
    """
    gradio = require_gradio()
    page = build_page(editor)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    page.launch(
        server_name=host,
        server_port=port,
        share=share,
        inbrowser=open_browser,
        prevent_thread_lock=not block,
        max_file_size=MAX_UPLOAD_BYTES,
        footer_links=[],
        run_history=False,  # nobody's browser keeps the photos
        ssr_mode=False,
        # fonts of the machine: none is fetched from anybody
        theme=gradio.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return page


if __name__ == "__main__":
    launch(PhotoEditor())
