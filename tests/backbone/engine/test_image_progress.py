"""Where no terminal shows a bar, a long pass over images says in the log how far it is."""

from __future__ import annotations

from backbone.common import waiting
from backbone.engine.image_progress import ImageProgress
from backbone.engine.record import start_logging


def lines(capsys, between: float, monkeypatch) -> list[str]:
    for seconds in ("SECONDS_TO_FIRST_LINE", "SECONDS_BETWEEN_LINES"):
        monkeypatch.setattr(waiting, seconds, between)
    start_logging(None)
    with ImageProgress(3, "evaluating val", visible=True) as progress:
        for _ in range(3):
            progress.add(1)
    return capsys.readouterr().out.splitlines()


def test_lines(capsys, monkeypatch):
    said = lines(capsys, 0.0, monkeypatch)
    assert [line.split("  ")[0] for line in said] == [f"evaluating val: {done} of 3 images" for done in (1, 2, 3)]
    assert all("img/s  ETA " in line for line in said)


def test_a_short_pass_says_nothing(capsys, monkeypatch):
    assert lines(capsys, 60.0, monkeypatch) == []
