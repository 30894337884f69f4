"""Where a sweep stands is among the metrics of the Ray cluster that runs it, for Prometheus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import toy
import toy_sweep
from servers import HEAD_PORT, METRICS_PORT

import dashboards

DRIVER = """
import ray, sys, toy
ray.init(address=f"127.0.0.1:{sys.argv[1]}", log_to_driver=False, runtime_env=toy.runtime_env())
sys.argv[1:] = sys.argv[2:]
from orchestrator.cli import main
main()
"""


#: Metrics of GPUs, which a machine without any does not export.
GPU_ONLY = {"ray_node_gpus_utilization", "ray_node_gram_used"}
Scrape = dict[str, list[tuple[dict[str, str], float]]]
"""Metric -> (labels, value) of each of its series."""


def scraped() -> Scrape:
    """What Prometheus would read now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        # A fresh head serves them after some seconds.
        return {}
    found: Scrape = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        found.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
    return found


def told(scrape: Scrape, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """A metric of the toy sweep by some of its labels."""
    return {tuple(labels[each] for each in by): value for labels, value in scrape.get(name, []) if "Sweep" in labels}


def whole(scrapes: list[Scrape], name: str, *by: str) -> list[dict[tuple[str, ...], float]]:
    """A metric as each look saw it that saw all of its series: Ray hands them on one by one at first."""
    seen = [told(each, name, *by) for each in scrapes]
    series = set().union(*seen)
    return [each for each in seen if each and each.keys() == series]


@pytest.fixture(scope="module")
def scrapes(head: str, head_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[Scrape]:
    """What was there to be read, now and again, while a sweep ran of which half of the cells fail."""
    folder = tmp_path_factory.mktemp("monitored")
    text = (
        toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")
        + "limits: {running: 1}\n"
    )
    text = text.replace("plain: {behaviour: work}", "plain: {behaviour: slow}\n    bad: {behaviour: raise}")
    path = toy_sweep.write_sweep(folder, text.replace("x: [1, 2, 3]", "x: [1, 2, 3, 4, 5, 6]"))
    tests = Path(toy.__file__).parent
    command = [sys.executable, "-c", DRIVER, str(HEAD_PORT), "run", str(path), "--outputs", str(folder / "out")]
    log = folder / "log"
    seen: list[Scrape] = []
    with log.open("wb") as said:
        environment = {**head_environment, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
        driver = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        while driver.poll() is None:
            seen.append(scraped())
            time.sleep(0.5)
    assert driver.returncode == 1, log.read_text()
    return seen


def test_prometheus_sees_the_steps_of_each_stage_and_state(scrapes: list[Scrape]) -> None:
    seen = whole(scrapes, "ray_sweep_steps", "Stage", "State")
    assert seen
    # Each look sees every step once; they move from pending over running to committed.
    assert {sum(count for (stage, _), count in each.items() if stage == "source") for each in seen} == {12}
    committed = [each["source", "committed"] for each in seen]
    assert committed == sorted(committed)
    assert committed[0] < committed[-1]
    assert any(each["source", "running"] for each in seen)


def test_prometheus_sees_cells_by_status_and_failures_by_class(scrapes: list[Scrape]) -> None:
    cells = whole(scrapes, "ray_sweep_cells", "Status")
    assert {sum(each.values()) for each in cells} == {24}
    assert any(each["succeeded",] for each in cells)
    failures = [found for each in scrapes if (found := told(each, "ray_sweep_failures", "Stage", "Class"))]
    assert failures
    assert set(failures[-1]) == {("total", "ValueError")}
    assert 0 < failures[-1]["total", "ValueError"] <= 12


def test_every_metric_of_the_grafana_dashboard_is_exported_by_a_run(scrapes: list[Scrape]) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    board = json.loads(Path(dashboards.__file__).with_name("grafana.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in expressions for name in re.findall(r"\bray_\w+", expression)}
    exported = {name for each in scrapes for name in each}
    assert named - GPU_ONLY <= exported
    # Of these Ray's own list must do where there is no GPU.
    assert {f"ray_{name}" for name in METRICS_GAUGES} >= GPU_ONLY & named
    labels = {label for each in scrapes for name in named & each.keys() for found, _ in each[name] for label in found}
    asked = {label for each in expressions for label in re.findall(r"(\w+)=", each)}
    asked |= {label for each in expressions for part in re.findall(r"by \((.*?)\)", each) for label in part.split(", ")}
    assert asked <= labels
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_a_step_that_fits_no_node_fails_at_once_with_the_nodes_that_there_are(
    head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    path = toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP + "runtime: {source: {gpus: 3}}\n")
    tests = Path(toy.__file__).parent
    command = [sys.executable, "-c", DRIVER, str(HEAD_PORT), "run", str(path), "--outputs", str(tmp_path / "out")]
    environment = {**head_environment, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "UnplaceableError: a node with 1 CPU, 3 GPUs is needed, and there are 1 × (" in said
    assert "with `device: cpu` under `runtime` it runs on cores" in said
