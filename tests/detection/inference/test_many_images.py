"""Images of every source in one run: JSON Lines and COCO results, runs that are killed, and processes that share."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import detection
from backbone import ConfigError, DataError, RunError
from detection.inference import items
from detection.inference import predict as module
from detection.inference.drawn_videos import draw_line
from detection.inference.inputs import list_inputs
from detection.inference.lines import PartWriter

detection.register()

from small_detectors import photo, save_detector  # noqa: E402

from detection.inference.predict import predict  # noqa: E402
from detection.inference.predict_request import PredictRequest, launch_of  # noqa: E402

SMALL = ["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96, "DATALOADER.NUM_WORKERS", 0]
ROOT = Path(__file__).resolve().parents[3]
FRAMES, RATE = 14, 12.5


def png(seed: int) -> bytes:
    return cv2.imencode(".png", photo(60, 80, seed))[1].tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_clip(path: Path, code: str) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), RATE, (80, 60))
    # Smooth, so that packing changes little.
    picture = cv2.resize(photo(6, 8, 1), (80, 60), interpolation=cv2.INTER_CUBIC)
    for number in range(FRAMES):
        writer.write(np.roll(picture, 3 * number, axis=1))
    writer.release()


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> SimpleNamespace:
    """A small Mask R-CNN, eight images in two folders of which one is empty, a shard of three, and two videos."""
    folder = tmp_path_factory.mktemp("given")
    checkpoint = save_detector(folder / "model.pth", ["cat", "dog", "owl"], [17, 18, 90])
    for seed in range(8):
        path = folder / "photos" / "ab"[seed % 2] / f"im{seed // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))
    (folder / "photos" / "b" / "im1.png").write_bytes(b"")
    write_tar(
        folder / "s.tar",
        {f"x/{seed}.{end}": png(seed) if end == "png" else b"1" for seed in range(3) for end in ("cls", "png")},
    )
    write_clip(folder / "clip.mp4", "mp4v")
    write_clip(folder / "clip.avi", "MJPG")
    return SimpleNamespace(
        folder=folder, weights=checkpoint, detector=detection.load(checkpoint, "cpu", overrides=SMALL)
    )


def run(given, source: object, output: Path, **options):
    return predict(given.detector, str(source), output, **{"least_score": 0.3, **options})


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "detections.jsonl").read_text().splitlines()]


def files_of(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "found"
    outcome = run(given, given.folder / "photos", output)
    assert (outcome.images, outcome.skipped) == (7, 1)
    return output


# -- what comes out


def test_a_line_is_what_the_detector_finds_on_the_image(given, whole):
    lines = lines_of(whole)
    assert [line["file_name"] for line in lines] == [f"{side}/im{number}.png" for side in "ab" for number in range(4)]
    records = json.loads((whole / "predictions.json").read_text())
    for line in lines:
        if line["file_name"] == "b/im1.png":
            assert "0 bytes" in line["error"] and "detections" not in line
            continue
        found = given.detector(given.folder / "photos" / line["file_name"])
        assert (line["height"], line["width"]) == found.size
        assert [{**record, "class": name} for record, name in zip(found.to_coco(line["id"]), found.class_names)] == [
            {"image_id": line["id"], **record} for record in line["detections"]
        ]
        assert [record for record in records if record["image_id"] == line["id"]] == found.to_coco(line["id"])
    assert sum(len(line.get("detections", ())) for line in lines) == len(records) > 0
    images = json.loads((whole / "images.json").read_text())["images"]
    assert images == [
        {key: line[key] for key in ("id", "file_name", "width", "height")} for line in lines if "error" not in line
    ]
    # Images of one name in two folders have a picture each.
    assert {f"{side}/im0_detections.jpg" for side in "ab"} < set(files_of(whole))


def test_a_list_a_pattern_and_a_folder_find_the_same(given, whole, tmp_path, monkeypatch):
    """The list names files, a folder and a pattern, from here and from its own folder, and some twice."""
    monkeypatch.chdir(tmp_path)
    (given.folder / "list.txt").write_text(
        f"# photos\n\nphotos/a\r\n{given.folder}/photos/a/im0.png\nphotos/b/im[02].png\nphotos/gone.png\n"
        "photos/b/im3.png\n"
    )
    outcome = run(given, given.folder / "list.txt", tmp_path / "list")
    assert (outcome.images, outcome.skipped) == (7, 1)
    (fault,) = (line for line in lines_of(tmp_path / "list") if "error" in line)
    assert fault["error"] == f"{given.folder / 'list.txt'}, line 6: photos/gone.png does not exist"
    run(given, given.folder / "photos" / "**" / "*.png", tmp_path / "glob", pictures=False)
    expected = {line["file_name"]: line.get("detections") for line in lines_of(whole) if "error" not in line}
    for output in ("list", "glob"):
        found = {line["file_name"]: line["detections"] for line in lines_of(tmp_path / output) if "error" not in line}
        assert found == expected
    assert set(files_of(tmp_path / "glob")) == {"detections.jsonl", "predictions.json", "images.json"}
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbfgiven.png\n")))
    (tmp_path / "given.png").write_bytes(png(0))
    assert run(given, "-", tmp_path / "stdin").images == 1


def test_members_of_shards_are_read_in_place(given, whole, tmp_path):
    """Names in an archive never lead out of the output; a damaged archive gives what comes before the damage."""
    shard = tmp_path / "in" / "odd.tar"
    shard.parent.mkdir()
    long = "n" * 230 + ".png"
    write_tar(
        shard, {name: png(0) for name in ("../../up.png", "/root.png", "up.png", f"d/{long}", "a\nb.png", "z.png")}
    )
    content = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(content + bytes(-len(content) % 512) + b"x" * 512)
    write_tar(tmp_path / "in" / "none.tar", {"a.txt": b"x"})
    (tmp_path / "in" / "s.tar").write_bytes((given.folder / "s.tar").read_bytes())
    outcome = run(given, tmp_path / "in", tmp_path / "deep" / "found", forms=("yolo",))
    lines = {line["file_name"]: line for line in lines_of(tmp_path / "deep" / "found")}
    assert (
        "none.tar: no image in it" in lines["none.tar"]["error"] and "not a readable tar" in lines["odd.tar"]["error"]
    )
    names = {f"odd.tar/{name}" for name in ("up.png", "root.png", f"d/{long}", "a_b.png", "z.png")}
    names |= {f"s.tar/x/{number}.png" for number in range(3)}
    assert set(lines) == names | {"none.tar", "odd.tar"} and (outcome.images, outcome.skipped) == (8, 2)
    expected = {line["file_name"]: line.get("detections") for line in lines_of(whole)}
    assert lines["s.tar/x/2.png"]["detections"] == expected["a/im1.png"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "found" not in path.parts) == [
        "none.tar",
        "odd.tar",
        "s.tar",
    ]
    assert len([name for name in files_of(tmp_path / "deep" / "found") if name.endswith("_detections.jpg")]) == 8


# -- videos


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_frames_of_a_video_by_number(given, tmp_path, name):
    outcome = run(given, given.folder / name, tmp_path, every=3)
    lines = lines_of(tmp_path)
    assert [line["frame"] for line in lines] == list(range(0, FRAMES, 3)) and outcome.images == len(lines)
    assert [line["seconds"] for line in lines] == [pytest.approx(number / RATE) for number in range(0, FRAMES, 3)]
    reader, frames = cv2.VideoCapture(str(given.folder / name)), []
    while (read := reader.read())[0]:
        frames.append(read[1])
    for line in lines:
        expected = given.detector(frames[line["frame"]], bgr=True)
        assert [record["bbox"] for record in line["detections"]] == [r["bbox"] for r in expected.to_coco()]
    copy = cv2.VideoCapture(str(tmp_path / "clip_detections.mp4"))
    assert (copy.get(cv2.CAP_PROP_FPS), copy.get(cv2.CAP_PROP_FRAME_COUNT)) == (RATE, FRAMES)
    # A frame between two that were detected on shows the boxes of the first.
    shown = [copy.read()[1] for _ in range(5)][4].astype(int)
    index = {17: 0, 18: 1, 90: 2}
    before, after = (draw_line(frames[4], lines[at], given.detector.classes, index, 0.3) for at in (1, 2))
    to_before, to_after, to_none = (np.abs(shown - picture).mean() for picture in (before, after, frames[4]))
    assert to_before < 0.5 * min(to_after, to_none)


def test_a_video_that_is_cut_off_gives_what_there_is(given, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    content = (given.folder / "clip.avi").read_bytes()
    (tmp_path / "in" / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "in" / "no.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "a.png").write_bytes(png(0))
    outcome = run(given, tmp_path / "in", tmp_path / "found")
    lines = lines_of(tmp_path / "found")
    frames = [line["frame"] for line in lines if "frame" in line]
    assert frames == list(range(len(frames))) and 2 < len(frames) < FRAMES and outcome.images == 1 + len(frames)
    errors = [line["error"] for line in lines if "error" in line]
    assert f"ends after {len(frames)} of {FRAMES} frames" in errors[0] and "not a video that OpenCV" in errors[1]
    assert len({line["id"] for line in lines}) == len(lines) and "cut_detections.mp4" in files_of(tmp_path / "found")


def test_a_stream_yields_what_predict_finds(given, whole, tmp_path):
    found = list(given.detector.stream(given.folder / "photos"))
    expected = [line for line in lines_of(whole) if "error" not in line]
    assert [result.source for result in found] == [
        str(given.folder / "photos" / line["file_name"]) for line in expected
    ]
    for result, line in zip(found, expected):
        assert result.to_coco(line["id"]) == [
            r for r in json.loads((whole / "predictions.json").read_text()) if r["image_id"] == line["id"]
        ]
        assert result.frame is None
    frames = given.detector.stream(given.folder / "clip.avi", every=5)
    assert [(result.frame, result.draw().size) for result in frames] == [(0, (80, 60)), (5, (80, 60)), (10, (80, 60))]
    with pytest.raises(DataError, match="no such image"):
        next(given.detector.stream(tmp_path / "gone"))


# -- runs that end before their time, and several processes


class Killed(BaseException):
    pass


@pytest.mark.parametrize("source", ["photos", "clip.mp4"])
def test_a_run_that_ends_in_the_middle_goes_on_to_the_same_files(given, tmp_path, monkeypatch, source):
    run(given, given.folder / source, tmp_path / "whole")
    write = PartWriter.write

    def stop_after(number: int) -> None:
        left = iter(range(number))

        def limited(self, line):
            if next(left, None) is None:
                # As a kill in the middle of a line leaves it.
                self.file.write(json.dumps(line).encode()[:30])
                raise Killed
            write(self, line)

        monkeypatch.setattr(PartWriter, "write", limited)

    for number in (2, 3):
        stop_after(number)
        with pytest.raises(Killed):
            run(given, given.folder / source, tmp_path / "found")
        assert not (tmp_path / "found" / "detections.jsonl").exists()
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"unfinished run with another --every \(1, now 2\); --overwrite"):
        run(given, given.folder / source, tmp_path / "found", every=2)
    detected = []
    read = module.pixels_of_item
    monkeypatch.setattr(module, "pixels_of_item", lambda item, **kw: detected.append(item.id) or read(item, **kw))
    run(given, given.folder / source, tmp_path / "found")
    assert len(detected) == len(lines_of(tmp_path / "whole")) - 5
    assert files_of(tmp_path / "found") == files_of(tmp_path / "whole")


def test_a_write_that_takes_a_part_is_gone_on_with(tmp_path):
    writer = PartWriter(tmp_path, 0)
    real = writer.file
    writer.file = SimpleNamespace(write=lambda data: real.write(data[:7]), close=real.close)
    writer.write({"id": 1, "file_name": "a.jpg", "detections": []})
    writer.close()
    assert (tmp_path / "detections.part0.jsonl").read_text() == '{"id": 1, "file_name": "a.jpg", "detections": []}\n'


def test_processes_share_the_images(given, tmp_path, monkeypatch):
    inputs = list_inputs(str(given.folder), tmp_path)
    alone = [(item.id, item.name) for item in items.items_of(inputs)]
    assert len(alone) == items.number_of_items(inputs) == 8 + 3 + 2 * FRAMES
    done = np.array(sorted(id_ for id_, _ in alone[3:20:2]))
    shares = []
    monkeypatch.setattr(items.distributed, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(items.distributed, "rank", lambda rank=rank: rank)
        shares.append([(item.id, item.name) for item in items.items_of(inputs, done=done)])
    left = [pair for pair in alone if pair[0] not in done]
    assert sorted(sum(shares, [])) == sorted(left) and max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [shares[place % 3][place // 3] for place in range(len(left))] == left


def test_nothing_of_a_mistake_is_left(given, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "none.txt").write_text("# none\n")
    for source, options, kind, said in (
        ("bad.png", {}, DataError, "none of 1 file of --input could be read; .*bad.png"),
        ("bad.png", {"every": 0}, ConfigError, "--every must be 1 or more, not 0"),
        ("bad.png", {"least_score": float("nan")}, ConfigError, "--score must be a number from 0 to 1, not nan"),
        ("*.gif", {}, DataError, "no such image"),
        ("none.txt", {}, DataError, "none.txt: this list names no file"),
    ):
        with pytest.raises(kind, match=said):
            run(given, tmp_path / source, tmp_path / "found", **options)
        assert not (tmp_path / "found").exists()


def test_standard_input_is_refused_for_several_processes(tmp_path):
    """A started process has none: its list would be empty."""
    request = PredictRequest("w.pth", "cpu", None, None, (), (), "-", tmp_path, {})
    assert launch_of(request, 1).world_size == 1
    with pytest.raises(RunError, match="--input -: standard input is for one process, not 2"):
        launch_of(request, 2)


@pytest.mark.slow
def test_killed_processes_go_on_to_the_files_of_one(given, tmp_path):
    """kill -9, of runs of two and of one process."""

    def call(output: Path, number: int, stop: int = 0) -> None:
        flags = ("--weights", given.weights, "--input", given.folder, "--output", output, "--num-processes", number)
        command = [sys.executable, ROOT / "tools" / "predict.py", *flags, "--device", "cpu", *SMALL]
        process = subprocess.Popen([str(part) for part in command], env={**os.environ, "PYTHONPATH": str(ROOT)})
        while process.poll() is None:
            if stop and sum(part.read_bytes().count(b"\n") for part in output.glob("detections.part*")) >= stop:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
        assert bool(process.returncode) == bool(stop)

    call(tmp_path / "whole", 1)
    for number, stop in ((2, 4), (1, 9), (2, 20), (3, 0)):
        call(tmp_path / "found", number, stop)
        time.sleep(2)  # until the processes of the killed launcher have ended
    assert files_of(tmp_path / "found") == files_of(tmp_path / "whole")
