"""A page that shows what a detector finds on a dropped image, and the same over HTTP as JSON. Needs gradio (the extra
"demo").

Nothing is asked for outside of the machine, neither by the process nor by its page.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from backbone.common.errors import DataError, RunError, UserError
from backbone.common.images import decode_image

from .detections import Detections, found_line
from .detector import Detector

# Where POST takes an image.
DETECT = "/api/detect"
MOST_BYTES = 64 * 2**20  # of an image file
KEPT = 3600  # seconds that what a visitor has sent is kept
# Gradio asks its makers' servers otherwise; its page has no fonts of others but these.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
FONTS = ["system-ui", "sans-serif"]
CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1280px !important; margin: 0 auto; }
.min_value, .max_value { color: var(--body-text-color) !important; opacity: 1 !important; }
"""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free.

    Raises:
        RunError: the address is not this machine's, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        known = isinstance(error, OSError) and error.errno and error.errno > 0
        reason = os.strerror(error.errno) if known else getattr(error, "strerror", None) or str(error).rstrip(".")
        raise RunError(f"--host {host} --port {port}: {reason}; give a free --port, or 0 for any") from None


def address_of(listening: socket.socket) -> str:
    """Return the URL of the page."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str | None) -> bool:
    """Whether an address, in numbers, is this machine's own, which no other can reach."""
    return ipaddress.ip_address(host or "::").is_loopback


def how_to_post(address: str, score: float) -> str:
    """Return a command that gets the detections of an image as JSON."""
    return f"curl --data-binary @image.jpg '{address}{DETECT}?score={score:g}'"


def serve(detector: Detector, listening: socket.socket, *, score: float, title: str) -> None:
    """Answer until SIGINT or SIGTERM.

    Args:
        score: where the slider starts, and the least score over HTTP.
        title: of the page.
    """
    import uvicorn

    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        app = make_app(detector, Path(folder), address_of(listening), score=score, title=title)
        # A page that is open keeps a connection: it is not waited for.
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        # uvicorn ends its work at both signals, and hands them on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def make_app(detector: Detector, folder: Path, address: str, *, score: float, title: str) -> Any:
    """Return the ASGI application: the page at /, and POST at DETECT.

    Args:
        folder: for what visitors send and fetch.
        address: of the page. If only this machine reaches it, foreign pages in its browser are refused, by whatever
            name they ask.
    """
    os.environ.update({**QUIET, "GRADIO_TEMP_DIR": str(folder)})
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # One image at a time: a detector uses all cores.
    turn = threading.Lock()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if is_local(urlsplit(address).hostname):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    _add_http(app, detector, turn, score)
    page = _page(detector, folder, turn, address, score=score, title=title)
    theme = gradio.themes.Default(font=FONTS, font_mono=["monospace"])
    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css=CSS,
        max_file_size=MOST_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )


def as_json(found: Detections, score: float) -> dict[str, Any]:
    """Return {"width", "height", "score", "detections"}: records of COCO's results form with the names of the classes,
    the surest first, of `score` or more."""
    shown = found[found.scores >= score]
    records = [
        {"class_name": name, **{key: value for key, value in record.items() if key != "image_id"}}
        for name, record in zip(shown.class_names, shown.to_coco())
    ]
    height, width = found.size
    return {"width": width, "height": height, "score": score, "detections": records}


def _add_http(app: Any, detector: Detector, turn: threading.Lock, score: float) -> None:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    def work(content: bytes, least: float) -> dict[str, Any]:
        order, channels = detector.channel_order, len(detector.config.MODEL.PIXEL_MEAN)
        image = decode_image(np.frombuffer(content, np.uint8), "the image", channel_order=order, channels=channels)
        with turn:
            return as_json(detector(image, bgr=True), least)

    async def answer(request: Request) -> JSONResponse:
        try:
            least = _score(request.query_params.get("score", score))
            content = await _content(request)
            return JSONResponse(await run_in_threadpool(work, content, least))
        except UserError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    app.add_route(DETECT, answer, methods=["POST"])


def _score(text: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise DataError(f"score is {text!r}; give a number from 0 to 1")
    return value


async def _content(request: Any) -> bytes:
    """Return the file that was sent: as the body, or as the field "image" of a form."""
    content = bytearray()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        file = (await request.form()).get("image")
        if not hasattr(file, "read"):
            raise DataError("the form has no file in the field 'image'")
        content += await file.read(MOST_BYTES + 1)
    else:
        async for part in request.stream():
            content += part
            if len(content) > MOST_BYTES:
                break
    if len(content) > MOST_BYTES:
        raise DataError(f"the image file is larger than {MOST_BYTES // 2**20} MB; send a smaller one")
    return bytes(content)


def _page(detector: Detector, folder: Path, turn: threading.Lock, address: str, *, score: float, title: str) -> Any:
    import gradio

    def detect(image: Any) -> Detections | None:
        if image is None:
            return None
        try:
            with turn:
                return detector(image)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from None

    def show(found: Detections | None, least: float) -> tuple[Any, str, Any]:
        if found is None:
            return None, "", gradio.DownloadButton(interactive=False, value=None)
        shown = found[found.scores >= least]
        # Each in a folder of its own, so that all are named alike where they are saved.
        file = Path(tempfile.mkdtemp(dir=folder)) / "detections.json"
        file.write_text(json.dumps(as_json(found, least)), encoding="utf-8")
        names = Counter(shown.class_names).most_common()
        words = ", ".join(f"{number} {name}" for name, number in names)
        line = found_line(len(found), len(shown), least) + (f": {words}" if words else "")
        return found.draw(least), line, gradio.DownloadButton(interactive=True, value=str(file))

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown(f"# {_plain(title)}")
        # No label over the picture's corner, and no button that shares it with others.
        plain = {"show_label": False, "buttons": ["download", "fullscreen"]}
        kept = gradio.State(None, time_to_live=KEPT)
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(type="pil", image_mode=None, sources=["upload", "clipboard"], **plain)
                slider = gradio.Slider(0, 1, value=score, step=0.01, label="score threshold")
            with gradio.Column():
                picture = gradio.Image(format="jpeg", interactive=False, **plain)
                line = gradio.Textbox(label="found", interactive=False, lines=1, max_lines=6)
                button = gradio.DownloadButton("Download JSON", interactive=False)
        gradio.Markdown(f"Over HTTP: `{how_to_post(address, score)}`")
        shown = [picture, line, button]
        # Not part of the interface of HTTP, which is DETECT alone.
        private = {"api_visibility": "private", "show_progress": "minimal"}
        image.change(detect, image, kept, **private).then(show, [kept, slider], shown, **private)
        slider.change(show, [kept, slider], shown, trigger_mode="always_last", **private)
    return page


def _plain(words: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"&#{ord(letter)};" if not letter.isalnum() and letter != " " else letter for letter in words)
