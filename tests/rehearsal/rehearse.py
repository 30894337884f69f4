"""`make rehearse-full`: `sweeps/full.yaml` from `ray job submit` to table and MLflow, stopped twice on the way.

Nothing of the file changes but what `full_in_small` overrides, and no stage is left out: tiny random models of the same
architectures stand in for those of the Hub, and a head on this machine has two logical GPUs.
"""

from __future__ import annotations

import argparse
import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from findings import check, finishing
from full_in_small import overrides
from logical_head import REPOSITORY, Head, start_head
from story import Story, report
from tiny_models import make

from orchestrator.results.heartbeat import read_heartbeat, unpack_codes
from orchestrator.results.status import STATUSES

SWEEP = "sweeps/full.yaml"
#: Shares of the steps after which the job is stopped; of few cells each start takes longer than all the steps.
STOPS, STOPS_OF_FEW = (0.25, 0.6), (0.4,)
#: What Ray counts on two cores: four are those of a node whose CPUs have work beside its two GPUs. Few cells are done
#: before so many processes have imported torch.
CORES, CORES_OF_FEW = 4, 2
#: Seconds between two looks.
EVERY = 2.0


def rehearse(folder: Path, few: bool) -> Story:
    """Play the sweep, and keep what happened as `story.pickle` in the folder.

    Args:
        folder: for models, outputs and logs; it may hold those of an earlier rehearsal, which then goes on.
        few: only 36 of the cells.
    """
    data = REPOSITORY / "sweeps" / "data"
    texts = [json.loads(line)["chosen"] for line in (data / "helpful.jsonl").read_text().splitlines()]
    models = make(folder / "models", texts)
    arguments = [SWEEP, *overrides(models, data, few)]
    story = Story(folder / "outputs", few)
    with start_head(folder / "cache", CORES_OF_FEW if few else CORES) as head:
        for number, share in enumerate((*(STOPS_OF_FEW if few else STOPS), None, None), start=1):
            say(f"submission {number}")
            watch(head, story, number, arguments, share)
        story.package = head.package()
    (folder / "story.pickle").write_bytes(pickle.dumps(story))
    return story


def watch(head: Head, story: Story, number: int, arguments: list[str], share: float | None) -> None:
    """Submit the sweep and look on until the job ends; stop it after a share of its steps."""
    name = f"rehearsal-{time.strftime('%H%M%S')}-{number}"
    log = story.outputs.parent / f"submission-{number}.log"
    process = head.submit(name, story.outputs, log, arguments)
    started, stopped = time.time(), False
    while True:
        try:
            process.wait(EVERY)
            break
        except subprocess.TimeoutExpired:
            done, finished = progress(story.outputs / "sweeps" / "full")
            story.look(number, done, finished, head.memory())
            if share is not None and done is not None and done >= share:
                say(f"{done:.0%} of the steps: ray job stop")
                head.stop(name)
                stopped, share = True, None
    story.ended(number, started, stopped, process.returncode, log.read_text(errors="replace"))
    say(f"submission {number} ended after {time.time() - started:.0f} s with exit code {process.returncode}")


def progress(folder: Path) -> tuple[float | None, int]:
    """Return the share of the steps that is committed and the number of finished cells, as the driver says."""
    beat = read_heartbeat(folder)
    if not beat:
        return None, 0
    counts = beat["steps"].values()
    total = sum(sum(each.values()) for each in counts)
    finished = int((unpack_codes(beat["cells"]) == STATUSES.index("succeeded")).sum()) if beat["cells"] else 0
    return sum(each["committed"] for each in counts) / total, finished


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    """Rehearse, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for models, outputs and logs")
    parser.add_argument("--few", action="store_true", help="only 36 of the 12,960 cells")
    parser.add_argument("--report", type=Path, help="Markdown file of the results; default: results.md in the folder")
    given = parser.parse_args()
    # Whoever ends this ends the head too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    story = rehearse(folder, given.few)
    findings = check(story)
    text = report(story, findings, finishing(story))
    (given.report or folder / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return int(not all(each.right for each in findings))


if __name__ == "__main__":
    sys.exit(main())
