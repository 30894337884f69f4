"""Workers, nodes and whole clusters go away in mid-run; the sweep does not notice, or the same command finishes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_sweep
from long_sweep import LONG, calm_table, check_nothing_is_lost_or_twice
from toy_runs import environment
from toy_sweep import ASK

from orchestrator.session import open_session
from orchestrator.types import Outcome

pytestmark = [pytest.mark.faults, pytest.mark.ray]

#: Kills a random Ray worker that computes a step, now and then. Not for ever: where a new process takes longer to start
#: than the next kill to come, nothing would ever be done.
KILLER = """
import random, threading, time, psutil
def kill():
    me = psutil.Process()
    killed = 0
    while killed < 12:
        time.sleep(0.7)
        names = ("ray::source", "ray::double", "ray::total", "ray::ask")
        busy = [each for each in me.children(recursive=True) if each.name().startswith(names)]
        if busy:
            random.choice(busy).kill()
            killed += 1
threading.Thread(target=kill, daemon=True).start()
"""

#: A head without cores and one node, which is lost and comes back as another.
CLUSTER = """
import os, threading, time, traceback, ray, toy
from pathlib import Path
from ray.cluster_utils import Cluster
def patiently(start):
    # Ray gives a node 30 s to start, which a machine that runs three test suites may not keep.
    for attempt in range(5):
        try:
            return start()
        except Exception:
            traceback.print_exc()
    os._exit(99)
cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}))
def join():
    node = patiently(lambda: cluster.add_node(wait=False, num_cpus=2, num_gpus=1))
    while not any(each["Alive"] and each["Resources"].get("CPU") for each in ray.nodes()):
        time.sleep(0.1)
    return node
# Before the other node is there: a driver whose own node is lost is another matter.
ray.init(address=cluster.address, log_to_driver=False, runtime_env=toy.runtime_env())
node = join()
# A node registers a signal handler, which only the main thread may do.
ray._private.utils.set_sigterm_handler = lambda handler: None
def exchange():
    trace = Path(os.environ["TOY_TRACE"])
    while not trace.exists() or len(trace.read_text().splitlines()) < 20:
        time.sleep(0.01)
    cluster.remove_node(node, allow_graceful=False)
    print("THE NODE IS GONE", flush=True)
    time.sleep(4)
    join()
    print("ANOTHER NODE IS HERE", flush=True)
    # The processes of a node die with the thread that started them.
    time.sleep(3600)
threading.Thread(target=exchange, daemon=True).start()
"""

#: The processes of the whole local Ray instance are killed after a while, the driver lives.
LOSER = """
import os, threading, time, psutil
from orchestrator.run.executors import ray_cluster
ray_cluster._CHECK_EVERY = 1.0
def lose():
    time.sleep(5)
    for each in psutil.Process().children(recursive=True):
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    print("RAY IS GONE", flush=True)
threading.Thread(target=lose, daemon=True).start()
"""


def run(folder: Path, setting: str, seconds: float = 1200) -> subprocess.CompletedProcess[str]:
    path = folder / "toy.yaml"
    # Whoever started Ray ends it: a sweep leaves a connection that was there before.
    code = (
        f"import ray, toy\n{setting}\nfrom orchestrator.cli import main\ntry:\n    main()\nfinally:\n    ray.shutdown()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "run", str(path), "--outputs", str(folder / "out")],
        # Ray would wait for a minute for a head that is gone.
        env={**environment(), "RAY_gcs_rpc_server_reconnect_timeout_s": "10"},
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


def outcomes(folder: Path) -> set[Outcome]:
    session = open_session(folder / "toy.yaml", outputs=str(folder / "out"))
    plan = session.plan
    histories = session.store.histories([plan.address(number) for number in range(len(plan))])
    return {attempt.outcome for history in histories.values() for attempt in history}


def statuses(folder: Path) -> set[str]:
    return set(pq.read_table(folder / "out" / "sweeps" / "toy" / "results.parquet")["status"].to_pylist())


@pytest.mark.long
def test_workers_killed_again_and_again_cost_only_time(tmp_path: Path, calm: pa.Table) -> None:
    toy_sweep.write_sweep(tmp_path, LONG + "runtime: {default: {attempts: 20}}\n")
    done = run(tmp_path, f"toy.connect()\n{KILLER}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(tmp_path) == {Outcome.CRASHED}
    check_nothing_is_lost_or_twice(tmp_path, calm)


def test_a_node_that_is_lost_and_replaced_costs_no_step_a_try(tmp_path: Path) -> None:
    # One try only: a lost node must not count. The doubles want a share of a (logical) GPU and a process of their own.
    few = LONG.replace(str(list(range(100))), str(list(range(8))))
    calm = calm_table(tmp_path / "calm", few)
    toy_sweep.write_sweep(tmp_path, few + "runtime: {default: {attempts: 1}, double: {gpus: 0.5, gpu_memory: 1GiB}}\n")
    done = run(tmp_path, CLUSTER)
    assert "ANOTHER NODE IS HERE" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(tmp_path) <= {Outcome.LOST}
    check_nothing_is_lost_or_twice(tmp_path, calm)


@pytest.mark.long
def test_processes_that_keep_a_model_are_killed_again_and_again_and_no_answer_is_lost(tmp_path: Path) -> None:
    questions = ASK.replace("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", str(list(range(20))))
    toy_sweep.write_sweep(tmp_path, questions + "runtime: {default: {attempts: 20}}\n")
    # A new process takes a second or two to start.
    done = run(tmp_path, f"toy.connect()\n{KILLER.replace('0.7', '2')}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(tmp_path) == {Outcome.CRASHED}
    rows = pq.read_table(tmp_path / "out" / "sweeps" / "ask" / "results.parquet").to_pylist()
    assert len({row["cell_id"] for row in rows}) == len(rows) == 12 * 20
    assert all(row["answer"] == len(row["model"]) + row["question"] for row in rows)


#: A local Ray that kills workers once the machine uses three gigabytes more than now: more than what else may run here
#: takes meanwhile, less than the step that takes five.
TIGHT = """
import toy
from orchestrator.run.executors.ray_start import start_ray
from ray._private.utils import get_system_memory, get_used_memory
threshold = (get_used_memory() + 3 * 2**30) / get_system_memory()
start_ray(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=toy.runtime_env(),
          _system_config={"memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100})
"""


@pytest.mark.long
def test_a_step_that_takes_all_memory_is_tried_alone_and_fails_with_advice_and_its_neighbours_succeed(
    tmp_path: Path,
) -> None:
    if psutil.virtual_memory().available < 8 * 2**30:
        pytest.skip("needs 8 GiB of free memory, since a step is to take 5")
    kinds = "plain: {behaviour: work}"
    text = toy_sweep.SWEEP.replace(kinds, f"{kinds}\n    bad: {{behaviour: gobble}}") + (
        "exclude: [{kind: bad, x: [1, 2]}, {kind: bad, y: 10}]\nruntime: {total: {attempts: 2}}\n"
    )
    toy_sweep.write_sweep(tmp_path, text)
    done = run(tmp_path, TIGHT)
    assert done.returncode == 1, done.stdout + done.stderr
    table = pq.read_table(tmp_path / "out" / "sweeps" / "toy" / "results.parquet").to_pylist()
    assert [row["status"] for row in table if row["kind"] == "plain"] == ["succeeded"] * 6
    (bad,) = [row for row in table if row["kind"] == "bad"]
    assert (bad["status"], bad["error_class"], bad["attempts"]) == ("failed", "out_of_memory", 2), bad
    assert "raise runtime.total.memory" in bad["error"]


@pytest.mark.long
def test_when_all_of_ray_is_lost_the_same_command_finishes_the_sweep(tmp_path: Path, calm: pa.Table) -> None:
    toy_sweep.write_sweep(tmp_path, LONG)
    lost = run(tmp_path, f"toy.connect()\n{LOSER}")
    # Ray would end the driver in mid-sentence, after ten seconds here.
    assert lost.returncode == 1, lost.stdout + lost.stderr
    said = lost.stdout.replace("\n", " ")
    assert "has not answered for" in said
    assert "what was running is lost, the rest is kept" in said
    assert "the same command goes on" in said
    assert "pending" in statuses(tmp_path)
    done = run(tmp_path, "toy.connect()")
    assert done.returncode == 0, done.stdout + done.stderr
    check_nothing_is_lost_or_twice(tmp_path, calm)


@pytest.mark.long
def test_a_step_that_kills_its_process_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    # Two of 202 cells crash every time; they travel in bundles with the others.
    kinds = "plain: {behaviour: nap}"
    text = LONG.replace(kinds, f"{kinds}\n    bad: {{behaviour: crash}}") + (
        f"exclude: [{{kind: bad, x: {list(range(1, 100))}}}]\nruntime: {{total: {{attempts: 2}}}}\n"
    )
    toy_sweep.write_sweep(tmp_path, text)
    done = run(tmp_path, "toy.connect()")
    assert done.returncode == 1, done.stdout + done.stderr
    table = pq.read_table(tmp_path / "out" / "sweeps" / "toy" / "results.parquet").to_pylist()
    assert {row["kind"]: row["status"] for row in table} == {"plain": "succeeded", "bad": "failed"}
    bad = [row for row in table if row["kind"] == "bad"]
    assert [(row["error_class"], row["attempts"]) for row in bad] == [("crashed", 2)] * 2
