"""Draws how a node's GPUs and cores are used while CPU work is queued: `draw_timeline.py docs/images/gpus-first.png`.

A node of 8 cores and 2 logical GPUs; 280 CPU steps of half a second, and GPU steps of two seconds with two cores each,
which become ready one after another.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
# As tests/conftest.py has it.
os.environ.update(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", OMP_NUM_THREADS="1")

from cluster_sweeps import STARVED, Sweeps
from ray_nodes import RayNodes
from timeline import Span, busy

#: Entry -> title and colour.
KINDS = {
    "tune": ("GPU step, {2 CPU, 1 GPU}", "#0072b2"),
    "prepare": ("CPU step that a GPU step waits for", "#e69f00"),
    "fit": ("other CPU step", "#b0b0b0"),
}


def main(path: Path) -> None:
    """Run the sweep and draw it."""
    with tempfile.TemporaryDirectory(prefix="timeline-") as folder:
        trace = Path(folder) / "trace"
        nodes = RayNodes({"CLUSTER_TRACE": str(trace)})
        try:
            nodes.join(num_cpus=8, num_gpus=2)
            with Sweeps(nodes, Path(folder), trace) as sweeps:
                sweeps.start(STARVED.replace("cpus: 4, gpus: 1", "cpus: 2, gpus: 1")).finish()
                spans = sweeps.spans()
        finally:
            nodes.end()
    draw(spans, path)


def draw(spans: list[Span], path: Path) -> None:
    """One lane for each GPU, and as many as needed for cores; a GPU step stands in the lane of its GPU only."""
    from matplotlib.figure import Figure

    start = min(span.begin for span in spans)
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots()
    lanes: list[float] = []
    for span in spans:
        assert span.end
        if span.entry == "tune":
            lane = -1 - int(span.device or 0)
        else:
            lane = next((lane for lane, until in enumerate(lanes) if until <= span.begin), len(lanes))
            lanes[lane:] = [span.end, *lanes[lane + 1 :]]
        colour = KINDS[span.entry][1]
        axes.barh(lane, span.end - span.begin, left=span.begin - start, height=0.85, color=colour, edgecolor="white")
    gpus = [-1, -2]
    axes.set_yticks([*gpus, *range(len(lanes))], ["GPU 0", "GPU 1", *(f"core {lane}" for lane in range(len(lanes)))])
    axes.set_xlabel("seconds")
    axes.margins(x=0.01)
    handles = [axes.barh([0], [0], color=colour, label=title) for title, colour in KINDS.values()]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False, fontsize=8)
    tunes = [span for span in spans if span.entry == "tune"]
    first, last = tunes[0].begin, max(span.end or 0.0 for span in tunes)
    print(f"GPUs busy {busy(tunes, first, last) / 2:.0%} from the first GPU step to the end of the last")
    figure.savefig(path, dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
