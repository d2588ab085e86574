"""The API over HTTP: requests in the fields that other servers of sound have, sounds out."""

import asyncio
import json
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.middleware import Middleware
from torch import Tensor

import audioldm
from audioldm.cli.options.groups import Output
from audioldm.cli.results import audio_bytes, levelled, pcm16, wav_header
from audioldm.errors import AudioLDMError
from audioldm.gate import Gate
from audioldm.serve.jobs import BusyError, Job, Stopped
from audioldm.serve.service import EditRequest, Result, Service

Format = Literal["wav", "flac", "mp3", "ogg"]
KINDS = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg"}
FORM_BYTES = 2**16  # that a request may have beside an uploaded sound


class Settings(BaseModel):
    """How a sound is made; what is left out is the model's own."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(None, description="The served model's name, or nothing.")
    response_format: Format = "wav"
    negative_prompt: str | None = Field(None, description="What to steer away from.")
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    seed: Annotated[int, BeforeValidator(lambda seed: secrets.randbelow(2**31) if seed is None else seed)]
    seed = Field(None, validate_default=True, description="Same seed, same sound; none draws one (X-Seed).")

    def settings(self, seconds: float | None = None) -> dict[str, Any]:
        named = {
            "negative": self.negative_prompt, "guidance": self.guidance_scale, "steps": self.num_inference_steps,
            "seconds": seconds,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}


class Generate(Settings):
    """A sound from words."""

    input: str = Field(description="What to hear.", max_length=10_000)
    audio_length: float | None = Field(None, description="Seconds.")
    stream: bool = Field(False, description="Send WAV as it comes.")


class Edit(Settings):
    """An edit of an uploaded sound."""

    audio: UploadFile
    kind: str = Field(description="transfer, inpaint, continue, upscale, vary or denoise.")
    input: str = Field("", description="What to hear.", max_length=10_000)
    begin: float = Field(0.0, description="Where the region to change begins, in seconds.")
    end: float = Field(0.0, description="Where it ends.")
    strength: float = Field(0.5, description="0 keeps the sound, 1 ignores it.")
    audio_length: float = Field(0.0, description="Seconds that continue adds.")


class API:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.counts: Counter[str] = Counter()

    async def generate(self, asked: Generate, request: Request) -> Response:
        """A sound from words: bytes of the format asked for, its seed in X-Seed."""
        self.check(asked)
        settings = asked.settings(asked.audio_length)
        if asked.stream:
            return await self.stream(asked, settings)
        job = self.service.generating(asked.input, seed=asked.seed, **settings)
        return await self.reply(request, job, asked)

    async def stream(self, asked: Generate, settings: dict[str, Any]) -> Response:
        """WAV whose header leaves the length open, and then 16-bit samples piece by piece, as they are made."""
        if asked.response_format != "wav":
            raise AudioLDMError("stream goes with response_format wav.", "Leave one of them out.")
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Tensor | None]()

        def put(piece: Tensor | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job = self.service.streaming(asked.input, put, seed=asked.seed, **settings)
        job.future.add_done_callback(lambda _: put(None))
        rate, first = self.service.pipe.spec.rate, await pieces.get()
        if first is None:
            job.future.result()

        async def content(piece: Tensor | None) -> AsyncIterator[bytes]:
            yield wav_header(rate)
            try:
                while piece is not None:
                    self.counts["sound_seconds"] += len(piece) / rate  # type: ignore[assignment]
                    yield pcm16(piece)
                    piece = await pieces.get()
                job.future.result()
            finally:
                job.stop()

        self.counts["replies_200"] += 1
        headers = {"X-Seed": str(asked.seed)}
        return StreamingResponse(content(first), media_type=KINDS["wav"], headers=headers)

    async def edit(self, request: Request, asked: Annotated[Edit, Form()]) -> Response:
        """An edit of an uploaded sound: multipart/form-data with the sound as ``audio``."""
        self.check(asked)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "upload")
            path.write_bytes(await asked.audio.read())
            wanted = EditRequest(
                asked.kind, str(path), asked.input, asked.begin, asked.end, asked.strength,
                asked.audio_length, seed=asked.seed,
            )  # fmt: skip
            sound = await asyncio.to_thread(self.service.prepared, wanted, **asked.settings())
        job = self.service.editing(wanted, sound, seed=asked.seed, **asked.settings())
        return await self.reply(request, job, asked)

    async def models(self) -> dict[str, Any]:
        """The served model."""
        pipe = self.service.pipe
        about = {"id": pipe.name, "object": "model", "owned_by": "audioldm", "sampling_rate": pipe.spec.rate}
        return {"object": "list", "data": [{**about, "defaults": vars(pipe.defaults)}]}

    async def health(self) -> dict[str, Any]:
        """Whether the server works, and how many wait."""
        jobs = self.service.jobs
        state = "stopping" if jobs.closing else "ok"
        return {"status": state, "waiting": len(jobs.waiting), "running": len(jobs.running)}

    async def metrics(self) -> Response:
        """Counters in the text format of Prometheus."""
        jobs = self.service.jobs
        values = {"waiting": len(jobs.waiting), "running": len(jobs.running)}
        counters = {**{f"jobs_{name}": value for name, value in jobs.counts.items()}, **self.counts}
        values |= {f"{name}_total": value for name, value in sorted(counters.items())}
        lines = [
            f"# TYPE audioldm_{name} {'counter' if name.endswith('_total') else 'gauge'}\naudioldm_{name} {value:g}"
            for name, value in values.items()
        ]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    def check(self, asked: Settings) -> None:
        name = self.service.pipe.name
        if asked.model not in (None, "", name):
            raise AudioLDMError(f"model={asked.model!r} is not served here.", f"Served: {name}.")

    async def reply(self, request: Request, job: Job, asked: Settings) -> Response:
        """The sound of a job, which is stopped if nobody waits any more."""
        future = asyncio.wrap_future(job.future)
        while not (await asyncio.wait([future], timeout=0.5))[0]:
            if await request.is_disconnected():
                job.stop()
                raise Stopped
        result: Result = future.result()
        rate, kind = self.service.pipe.spec.rate, asked.response_format
        self.counts["replies_200"] += 1
        self.counts["sound_seconds"] += len(result.wave) / rate  # type: ignore[assignment]
        headers = {"X-Seed": str(asked.seed), "X-Notes": json.dumps(result.notes)}
        wave, _ = await asyncio.to_thread(levelled, result.wave.float().cpu().numpy(), rate, Output())
        content = await asyncio.to_thread(audio_bytes, wave, rate, kind)
        return Response(content, media_type=KINDS[kind], headers=headers)

    async def refused(self, _: Request, error: Exception) -> Response:
        """One line of what is wrong, and the status that says whose fault it is."""
        by_code = 500 if getattr(error, "code", 2) == 1 else 422
        status, text = {BusyError: 503, Stopped: 499}.get(type(error), by_code), str(error)
        if isinstance(error, RequestValidationError):
            places = [".".join(map(str, one["loc"][1:])) or "the body" for one in error.errors()]
            faults = [one["msg"][:1].lower() + one["msg"][1:] for one in error.errors()]
            text = "; ".join(map(": ".join, zip(places, faults, strict=True))) + ". See /docs."
        self.counts[f"replies_{status}"] += 1
        return JSONResponse({"error": text}, status, {"Retry-After": "1"} if status == 503 else None)


def build(service: Service, *, host: str, token: str = "") -> FastAPI:
    api = API(service)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.jobs.close)

    most = service.limits.upload_mb * 2**20 + FORM_BYTES
    app = FastAPI(
        title="audioldm", version=audioldm.__version__, lifespan=life, redoc_url=None,
        description="Text to sound, and edits of sound.",
        middleware=[Middleware(Gate, host=host, token=token, most=most)],
    )  # fmt: skip
    sound: dict[int | str, Any] = {200: {"content": {kind: {} for kind in KINDS.values()}}}
    app.post("/v1/audio/generate", response_class=Response, responses=sound)(api.generate)
    app.post("/v1/audio/edit", response_class=Response, responses=sound)(api.edit)
    app.get("/v1/models")(api.models)
    app.get("/health")(api.health)
    app.get("/metrics", response_class=PlainTextResponse)(api.metrics)

    for kind in (AudioLDMError, RequestValidationError, Stopped):
        app.add_exception_handler(kind, api.refused)
    return app
