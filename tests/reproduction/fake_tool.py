"""Stands in for tools/pretrain.py in the tests of the runner: leaves what that leaves, or fails as a file tells it to.

Beside it, calls.jsonl takes its arguments, and fail.json {run folder's name: status} says who fails.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

here = Path(__file__).parent
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index("--output-dir") + 1])
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(arguments) + "\n")
plan = json.loads((here / "fail.json").read_text()) if (here / "fail.json").is_file() else {}
status = plan.get(folder.name, 0)
if status == "wait":
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "waiting").touch()
    time.sleep(60)
    (folder / "waited").touch()
if status == "killed":
    sys.stdout.write("iter 7/10  loss 1.0\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
if status == 2:
    sys.stderr.write("pretrain.py: error: /nowhere: the data root does not exist; give --data-root\n")
    sys.exit(2)
if status:
    sys.stderr.write("ValueError: out of luck\n")
    sys.exit(status)
test = "--eval-only" in arguments
folder.mkdir(parents=True, exist_ok=True)
sys.stdout.write("iter 10/10  loss 1.0\n")
results = {"date": "2026-01-03T00:00:00+00:00"}
if test:
    results[arguments[arguments.index("--protocol") + 1]] = {"top1_error": 0.2, "top5_error": 0.05, "images": 9}
else:
    (folder / "config.yaml").write_text("SOLVER: {MAX_ITER: 10, IMS_PER_BATCH: 256}\n")
    results.update({"iteration": 10, "single": {"top1_error": 0.3, "top5_error": 0.1, "images": 9}})
(folder / "results.json").write_text(json.dumps(results))
