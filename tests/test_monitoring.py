"""Where a sweep stands is among the metrics of the Ray cluster that runs it, for Prometheus."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import toy
from servers import HEAD_PORT, METRICS_PORT

DRIVER = """
import ray, sys, toy
toy.install()
ray.init(address=f"127.0.0.1:{sys.argv[1]}", log_to_driver=False, runtime_env=toy.runtime_env())
sys.argv[1:] = sys.argv[2:]
from orchestrator.cli import main
main()
"""


def scraped() -> dict[tuple[str, str], float]:
    """(Stage, state) -> how many steps, as Prometheus would read it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        # A fresh head serves them after some seconds.
        return {}
    lines = re.findall(r"^ray_sweep_steps\{(.*)\} (\S+)$", text, re.MULTILINE)
    found = {}
    for labels, value in lines:
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert named["Sweep"] == "toy"
        found[named["Stage"], named["State"]] = float(value)
    return found


@pytest.mark.ray
def test_prometheus_sees_the_steps_of_each_stage_and_state(
    head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    text = toy.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}") + "limits: {running: 1}\n"
    path = toy.write_sweep(tmp_path, text.replace("x: [1, 2, 3]", "x: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"))
    tests = str(Path(toy.__file__).parent)
    command = [sys.executable, "-c", DRIVER, str(HEAD_PORT), "run", str(path), "--outputs", str(tmp_path / "out")]
    log = tmp_path / "log"
    seen: list[dict[tuple[str, str], float]] = []
    with log.open("wb") as said:
        environment = {**head_environment, "PYTHONPATH": tests}
        driver = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        while driver.poll() is None:
            seen.append(scraped())
            time.sleep(0.5)
    assert driver.returncode == 0, log.read_text()
    seen = [each for each in seen if each]
    assert seen
    # Each look sees every step once; they move from pending over running to committed.
    assert {sum(count for (stage, _), count in each.items() if stage == "source") for each in seen} == {20}
    committed = [each["source", "committed"] for each in seen]
    assert committed == sorted(committed)
    assert committed[0] < committed[-1]
    assert any(each["source", "running"] for each in seen)


@pytest.mark.ray
def test_a_step_that_fits_no_node_is_said_to_wait_for_one(
    head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    path = toy.write_sweep(tmp_path, toy.SWEEP + "runtime: {source: {gpus: 3}}\n")
    tests = str(Path(toy.__file__).parent)
    command = [sys.executable, "-c", DRIVER, str(HEAD_PORT), "run", str(path), "--outputs", str(tmp_path / "out")]
    environment = {**head_environment, "PYTHONPATH": tests, "PYTHONUNBUFFERED": "1"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert driver.stdout
    with driver.stdout as lines:
        said = next((line for line in lines if "no node" in line), "")
        driver.terminate()
        rest = lines.read()
    assert said.strip() == "no node of the cluster has 1 CPUs, 3 GPUs; steps wait until one joins"
    assert driver.wait(60) == 143, rest
