"""The table of results.md: our errors beside the paper's, and the images that could not be read."""

from __future__ import annotations

from typing import Any

from backbone.classification.config import default_config
from backbone.classification.results import results_table


def result(top1: float, top5: float, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"top1_error": top1, "top5_error": top5, "images": 50000, "left_out": list(left_out)}


def cells(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    config = default_config()
    config.PAPER.ROWS = [["3", "ResNet-50", "10crop", 22.85, 6.71], ["4", "ResNet-50", "dense", 20.74, 0]]
    lines = results_table(results, config).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_the_paper_stands_beside_ours():
    header, ten, dense, one = cells(
        {"10crop": result(0.2291, 0.067), "dense": result(0.2081, 0.0532), "1crop": result(0.25, 0.08)}
    )
    assert header == ["protocol", "top-1 error %", "top-5 error %", "paper top-1 %", "paper top-5 %", "images"]
    assert ten == ["10crop", "22.91", "6.70", "22.85", "6.71", "50,000"]
    assert dense == ["dense", "20.81", "5.32", "20.74", "-", "50,000"]
    assert one == ["1crop", "25.00", "8.00", "-", "-", "50,000"]


def test_images_that_could_not_be_read_are_counted():
    header, ten, dense = cells({"10crop": result(0.2, 0.1), "dense": result(0.2, 0.1, ("x.JPEG", "y.JPEG"))})
    assert header[-1] == "left out" and (ten[-1], dense[-1]) == ("0", "2")
