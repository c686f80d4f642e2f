"""The demo: a page in a real browser, and HTTP with JSON, both by one process and without any other machine."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import cv2
import pytest

import detection
from backbone.common.errors import RunError

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'resnet-detection[demo]'")
uvicorn = pytest.importorskip("uvicorn")
detection.register()

from browser import NAMES, Browser, find  # noqa: E402
from small_detectors import photo, save_detector  # noqa: E402

from detection.inference.demo import DETECT, address_of, is_local, listen, make_app  # noqa: E402

SCORE = 0.35


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small Mask R-CNN that answers, and an image; and where any socket of this process was connected to."""
    folder = tmp_path_factory.mktemp("demo")
    detector = detection.load(save_detector(folder / "model.pth", ["cat", "<b>dog</b>", "猫"], [17, 18, 90]), "cpu")
    cv2.imwrite(str(folder / "photo.png"), photo(90, 120, 0))
    reached, asked = set(), threading.Event()

    def hook(event: str, arguments: tuple) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple) and not asked.is_set():
            reached.add(arguments[1][0])

    sys.addaudithook(hook)
    listening = listen("127.0.0.1", 0)
    address = address_of(listening)
    app = make_app(detector, folder, address, score=SCORE, title="A <i>title</i>")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield SimpleNamespace(detector=detector, image=folder / "photo.png", address=address, reached=reached)
    server.should_exit = True
    thread.join(30)
    asked.set()


def post(demo, content: bytes, query: str = "", headers: dict | None = None) -> tuple[int, dict | str]:
    request = urllib.request.Request(f"{demo.address}{DETECT}{query}", content, headers or {}, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text) if text.startswith("{") else text


def test_http_answers_with_what_the_detector_finds(demo):
    found = demo.detector(demo.image)
    status, answer = post(demo, demo.image.read_bytes())
    assert status == 200
    wanted = found[found.scores >= SCORE]
    assert (answer["width"], answer["height"], answer["score"]) == (120, 90, SCORE)
    records = [{"image_id": 1, **record} for record in answer["detections"]]
    assert [record.pop("class_name") for record in records] == wanted.class_names
    assert records == wanted.to_coco()
    assert len(records) > 0
    assert "counts" in records[0]["segmentation"]
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + demo.image.read_bytes()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (
        post(demo, form + b"\r\n--x--\r\n", "?score=0", headers)[1]["detections"][: len(records)]
        == answer["detections"]
    )


@pytest.mark.parametrize(
    ("content", "query", "headers", "status", "said"),
    [
        (b"", "", {}, 400, "the image file is empty"),
        (b"no image", "", {}, 400, "not an image that OpenCV can decode"),
        (b"x", "?score=high", {}, 400, "score is 'high'; give a number from 0 to 1"),
        (b"x", "?score=nan", {}, 400, "score is 'nan'"),
        (b"--x--\r\n", "", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "no file in the field 'image'"),
        (b"x", "", {"Host": "other.example"}, 400, "Invalid host"),
    ],
)
def test_http_says_what_is_wrong(demo, content, query, headers, status, said):
    code, answer = post(demo, content, query, headers)
    assert code == status
    assert said in (answer if isinstance(answer, str) else answer["error"])


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "multipart/form-data; boundary=x"}])
def test_http_takes_no_larger_file_than_the_page(demo, headers, monkeypatch):
    monkeypatch.setattr("detection.inference.demo.MOST_BYTES", 20)
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
    for content, said in ((b"y" * 20, "not an image"), (b"y" * 21, "larger than")):
        status, answer = post(demo, form % content if headers else content, headers=headers)
        assert status == 400
        assert said in answer["error"]


def test_addresses():
    with listen("127.0.0.1", 0) as taken:
        with pytest.raises(RunError, match="in use; give a free --port"):
            listen("127.0.0.1", taken.getsockname()[1])
        assert is_local(taken.getsockname()[0])
    assert not is_local("0.0.0.0")
    for host, port in (("nowhere.invalid", 0), ("127.0.0.1", 99999)):
        with pytest.raises(RunError, match="--host "):
            listen(host, port)


def test_page_in_a_browser(demo, tmp_path):
    program = find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    found = demo.detector(demo.image)
    with Browser(program) as browser:
        browser("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.open(demo.address, width=400)
        browser.wait("document.querySelector('input[type=file]')")
        assert browser.run("document.title") == "A <i>title</i>"
        assert browser.run("document.querySelector('h1').textContent.trim()") == "A <i>title</i>"
        root = browser("DOM.getDocument")["root"]["nodeId"]
        field = browser("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        browser("DOM.setFileInputFiles", nodeId=field, files=[str(demo.image)])
        line = "document.querySelector('textarea')?.value"
        browser.wait(line)
        number = int((found.scores >= SCORE).sum())
        assert browser.run(line).startswith(f"{len(found)} boxes, {number} of them above {SCORE}: ")
        browser.wait("document.querySelectorAll('.image-frame img, .image-container img').length >= 2")
        # The threshold moves without another detection.
        slider = "document.querySelector('input[type=range]')"
        browser.run(
            f"{{const one = {slider}; one.value = 0.9; one.dispatchEvent(new Event('input', {{bubbles: true}}));}}"
        )
        browser.wait(f"({line}).includes('above 0.9')")
        browser.run(
            f"{{const one = {slider}; one.value = {SCORE}; one.dispatchEvent(new Event('input', {{bubbles: true}}));}}"
        )
        browser.wait(f"({line}).includes('above {SCORE}')")
        browser.run("[...document.querySelectorAll('button, a')].find(e => e.textContent.includes('JSON')).click()")
        file = tmp_path / "detections.json"
        browser.wait("true")
        for _ in range(600):
            if file.is_file() and file.stat().st_size:
                break
            browser.run("new Promise(done => setTimeout(done, 50))")
        assert json.loads(file.read_text()) == post(demo, demo.image.read_bytes())[1]
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.low_contrast() == []
        assert browser.errors == []
        assert all(url.startswith(demo.address) for url in browser.requests)
    # The process, too, has spoken to nobody else.
    assert demo.reached <= {"127.0.0.1", "::1"}
