"""The HTTP service of `gptface serve`: one endpoint an operation, uploaded bytes in, pictures or JSON out."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gptface import __version__
from gptface.pipelines.face_captioning import DEFAULT_TOKENS, FaceCaptioningPipeline
from gptface.pipelines.face_classification import FaceAttributeClassificationPipeline, FacialExpressionPipeline
from gptface.pipelines.face_parsing_pipeline import FaceParsingPipeline
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.pipelines.text_to_face import TextToFacePipeline
from gptface.processing.edits import list_edits
from gptface.processing.image_loading import ImageInputError, load_image
from gptface.processing.image_saving import picture_bytes

from .batching import Batcher, OverloadedError

#: Of a request, and of its photo: what a telephone takes fits, and those that wait fit into the memory.
MAX_BODY_BYTES, MAX_PIXELS = 32 * 2**20, 25_000_000
MAX_CANDIDATES = 8
#: Photos that are decoded at the same time.
DECODING = 2
#: Header of a picture's response with what is known of it, as JSON.
REPORT_HEADER = "X-GPTFace-Report"
REPORTED = ("prompt", "match_score", "seed", "box", "edits", "verified", "kept", "note")
#: Addresses under which this machine alone is reached.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

logger = logging.getLogger(__name__)

Photo = Annotated[UploadFile, File(description="a photo: JPEG, PNG, WebP, …")]
Face = Annotated[str, Form(description='"largest", or an index, 0 the largest')]
Aligned = Annotated[bool, Form(description="the photo is an aligned face crop already")]
Seed = Annotated[int, Form(ge=-(2**63), lt=2**63 - MAX_CANDIDATES)]
Candidates = Annotated[int, Form(ge=1, le=MAX_CANDIDATES, description="edits to choose the best from")]
Format = Annotated[Literal["png", "jpg", "webp"], Form(description="of the picture in the response")]


@dataclass(frozen=True)
class Kind:
    """
    What jobs that go together have in common.

    Args:
        operation: a name of [`Operations`].
        options: of the pipeline's call.
    """

    operation: str
    options: tuple[tuple[str, Hashable], ...] = ()


class Operations:
    """
    The pipelines, around one model.

    Args:
        model: folder or Hub name of a checkpoint; the embedded one by default.
    """

    def __init__(self, model: str | None = None):
        edit = load_pipeline("guided-face-editing", model)
        parts = {"model": edit.model, "processor": edit.processor}
        self.pipelines: dict[str, Any] = {
            "edit": edit,
            "attributes": FaceAttributeClassificationPipeline(**parts),
            "expression": FacialExpressionPipeline(**parts),
            "caption": FaceCaptioningPipeline(**parts),
            "text-to-face": TextToFacePipeline(**parts),
        }
        if edit.has_face_parser:
            self.pipelines["parse"] = FaceParsingPipeline(**parts)

    def __call__(self, kind: Kind, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Rows of one kind → their results; an error of one is that one's."""
        pipe = self.pipelines[kind.operation]
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in kind.options}
        results = pipe(list(rows), on_error="return", batch_size=len(rows), **options)
        return [
            ValueError(result["error"]) if isinstance(result, dict) and "error" in result else result
            for result in results
        ]


class BodyLimit:
    """
    ASGI middleware: a body of too many bytes is answered by 413, and not read to its end.

    Args:
        app: behind it.
        max_bytes: of a body.
    """

    def __init__(self, app: Any, max_bytes: int = MAX_BODY_BYTES):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        received, refused = 0, told.isdigit() and int(told) > self.max_bytes

        async def counted() -> Any:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            refused = refused or received > self.max_bytes
            return {"type": "http.disconnect"} if refused else message

        async def unless_refused(message: Any) -> None:
            if not refused:
                await send(message)

        if not refused:
            try:
                await self.app(scope, counted, unless_refused)
            except Exception:
                if not refused:
                    raise
        if refused:
            text = f"the request has more than {self.max_bytes} bytes: send a smaller photo"
            await _failure(413, text, {"Connection": "close"})(scope, receive, send)


def create_app(
    model: str | None = None,
    *,
    batch_size: int = 4,
    max_waiting: int = 32,
    hosts: Sequence[str] = LOOPBACK,
    operations: Any = None,
) -> FastAPI:
    """
    The service as an ASGI application.

    Args:
        model: folder or Hub name of a checkpoint; the embedded one by default.
        batch_size: requests of one kind that go through the model at once, where so many wait.
        max_waiting: requests that may wait; more are answered by 503 with `Retry-After`.
        hosts: names by which it may be asked (`"*"`: any), so that no page on the web that leads a name of its own to
            this machine can ask it.
        operations: in the place of [`Operations`].

    Example:

    ```python
    import uvicorn
    from gptface.server.app import create_app

    uvicorn.run(create_app(), host="127.0.0.1", port=8000)
    ```
    """
    work = Operations(model) if operations is None else operations
    decoding = asyncio.Semaphore(DECODING)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Batcher(work, batch_size, max_waiting) as batcher:
            app.state.batcher = batcher
            yield

    # no page of the documentation: it would fetch scripts from elsewhere
    app = FastAPI(
        title="GPTFace", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, responses=RESPONSES
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _answer_errors(app)

    async def run(operation: str, row: dict[str, Any], **options: Any) -> Any:
        chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        kind = Kind(operation, tuple(sorted((name, value) for name, value in chosen.items() if value is not None)))
        return await asyncio.wrap_future(app.state.batcher.submit(kind, row))

    async def opened(upload: UploadFile) -> Image.Image:
        app.state.batcher.check_room()  # before the work of decoding
        async with decoding:
            return await run_in_threadpool(_open, await upload.read())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it works, and how much waits."""
        batcher = app.state.batcher
        return {"status": "ok", "version": __version__, "waiting": batcher.waiting, "max_waiting": batcher.max_waiting}

    @app.get("/edits")
    async def edits() -> list[dict[str, str]]:
        """The edits that prompts may ask for."""
        return [{"prompt": each.phrase, "quality": each.quality, "what": each.sentence} for each in list_edits()]

    @app.post("/edit", response_class=Response, responses=PICTURE)
    async def edit(
        image: Photo,
        prompt: Annotated[str, Form(description='edits in your own words, "make her smile"')],
        mask: Annotated[UploadFile | None, File(description="white where the photo may change")] = None,
        region: Annotated[list[str] | None, Form()] = None,
        negative_prompt: Annotated[str | None, Form()] = None,
        source_prompt: Annotated[str | None, Form()] = None,
        strength: Annotated[float | None, Form(gt=0, le=1)] = None,
        candidates: Candidates = 1,
        seed: Seed = 0,
        face: Face = "largest",
        aligned: Aligned = False,
        strict: Annotated[bool, Form(description="refuse a prompt without a known edit")] = True,
        force: Annotated[bool, Form(description="edit also what is there already")] = False,
        format: Format = "png",
    ) -> Response:
        """Edits a face; the picture of the best candidate."""
        row = {"image": await opened(image), "prompt": prompt, "seed": seed}
        row |= {"negative_prompt": negative_prompt, "source_prompt": source_prompt}
        if mask is not None:
            row["mask_image"] = await opened(mask)
        how = {"region": region, "strength": strength, "num_images_per_prompt": candidates}
        results = await run("edit", row, **how, **_finding(face, aligned), strict=strict, force=force)
        return await run_in_threadpool(_picture, results[0], format)

    @app.post("/attributes")
    async def attributes(image: Photo, face: Face = "largest", aligned: Aligned = False) -> list[dict[str, Any]]:
        """Attributes of a face with independent scores in [0, 1], best first."""
        return await run("attributes", {"image": await opened(image)}, **_finding(face, aligned))

    @app.post("/expression")
    async def expression(image: Photo, face: Face = "largest", aligned: Aligned = False) -> list[dict[str, Any]]:
        """Facial expressions with scores that sum to 1, best first."""
        return await run("expression", {"image": await opened(image)}, **_finding(face, aligned))

    @app.post("/caption")
    async def caption(
        image: Photo,
        tokens: Annotated[int, Form(ge=1, le=64)] = DEFAULT_TOKENS,
        candidates: Candidates = 1,
        seed: Seed = 0,
        face: Face = "largest",
        aligned: Aligned = False,
    ) -> list[dict[str, Any]]:
        """Captions of a face, best first."""
        row = {"image": await opened(image), "seed": seed}
        return await run("caption", row, num_tokens=tokens, num_captions=candidates, **_finding(face, aligned))

    @app.post("/parse")
    async def parse(image: Photo, face: Face = "largest", aligned: Aligned = False) -> list[dict[str, Any]]:
        """What a face shows: classes, largest first, each with its mask (a PNG in base64, of the photo's size)."""
        segments = await run("parse", {"image": await opened(image)}, **_finding(face, aligned))
        return await run_in_threadpool(lambda: [{**each, "mask": _png_text(each["mask"])} for each in segments])

    @app.post("/text-to-face", response_class=Response, responses=PICTURE)
    async def text_to_face(
        prompt: Annotated[str, Form()],
        negative_prompt: Annotated[str | None, Form()] = None,
        candidates: Candidates = 1,
        seed: Seed = 0,
        format: Format = "png",
    ) -> Response:
        """Makes a face; the picture of the best candidate."""
        row = {"prompt": prompt, "seed": seed, "negative_prompt": negative_prompt}
        results = await run("text-to-face", row, num_images_per_prompt=candidates)
        return await run_in_threadpool(_picture, results[0], format)

    return app


RESPONSES: dict[int | str, dict[str, Any]] = {
    413: {"description": f"a body of more than {MAX_BODY_BYTES} bytes"},
    422: {"description": "no picture, no face, or a parameter that makes no sense: `error` says which"},
    503: {"description": "too much is waiting: `Retry-After` says for how many seconds"},
}
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the picture; what is known of it is JSON in the header " + REPORT_HEADER,
        "content": {
            f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in ("png", "jpeg", "webp")
        },
    }
}


def _open(data: bytes) -> Image.Image:
    photo = load_image(data, name="the upload")
    if photo.width * photo.height > MAX_PIXELS:
        size = f"{photo.width}×{photo.height}"
        raise ImageInputError(f"the upload has {size} pixels, more than {MAX_PIXELS / 1e6:g} million: resize it first")
    return photo


def _finding(face: str, aligned: bool) -> dict[str, Any]:
    if face != "largest" and not face.isdigit():
        raise HTTPException(422, f'face must be "largest" or an index from 0, not {face!r}')
    return {"face": int(face) if face.isdigit() else face, "aligned": aligned}


def _picture(result: Mapping[str, Any], format: str) -> Response:
    report = {name: result[name] for name in REPORTED if name in result}
    kind = "jpeg" if format == "jpg" else format
    data = picture_bytes(result["image"], f".{format}")
    return Response(data, media_type=f"image/{kind}", headers={REPORT_HEADER: json.dumps(report, default=float)})


def _png_text(mask: Image.Image) -> str:
    target = io.BytesIO()
    mask.save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()


def _failure(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers=dict(headers or {}))


def _answer_errors(app: FastAPI) -> None:
    """Errors become JSON: those of what was sent say what is wrong, others nothing of the inside."""

    @app.exception_handler(StarletteHTTPException)
    async def known(request: Request, error: StarletteHTTPException) -> Response:
        return _failure(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        told = [f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors()]
        return _failure(422, "; ".join(told))

    @app.exception_handler(ValueError)
    async def unusable(request: Request, error: ValueError) -> Response:
        return _failure(422, str(error))

    @app.exception_handler(OverloadedError)
    async def overloaded(request: Request, error: OverloadedError) -> Response:
        return _failure(503, str(error), {"Retry-After": f"{error.seconds:.0f}"})

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s failed", request.url.path, exc_info=error)
        return _failure(500, "the server could not do this; its log says why")
