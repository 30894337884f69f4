"""`sweep doctor` at real Ray clusters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_server import sweep
from toy_runs import environment

from orchestrator.doctor.cluster import _Node, cluster_probes
from orchestrator.doctor.cluster_process import ClusterProcess
from orchestrator.doctor.examination import Examination, Subject, examinations
from orchestrator.doctor.finding import Finding


def examined(location: str) -> dict[str, Finding]:
    exchange = f"{location}-exchange"
    subject = Examination(Subject("cluster", lambda: cluster_probes(None, location, (), exchange)))
    found = {each.name: each for each in subject.findings(lambda _: None)}
    subject.join(60)
    return found


def test_nodes_share_a_store_in_a_folder_and_in_an_object_store_and_one_gets_a_lease(
    local_ray: None, tmp_path: Path, s3: str
) -> None:
    for location in (str(tmp_path / "store"), f"{s3}/store"):
        found = examined(location)
        assert [each for each in found.values() if each.state == "wrong"] == []
        assert "in each of 5 rounds" in found["one lease"].seen
        assert found["processes"].state == found["clocks"].state == "ok"


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.faults
def test_of_three_nodes_the_wrong_one_is_named_with_all_that_is_wrong_with_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("three_nodes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "c"), "--json"], env=environment(), capture_output=True, text=True
    )
    if "unshare" in done.stderr:
        pytest.skip(f"a node in namespaces of its own cannot be started here: {done.stderr.strip()}; only root may")
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = {each["name"]: each for each in report["findings"] if each["subject"] == "cluster"}
    assert {name for name, each in found.items() if each["state"] == "wrong"} == {"versions", "store"}
    assert "1.0.0 on wrong-node" in found["versions"]["seen"]
    assert "wrong-node" in found["store"]["seen"]
    assert "does not see what the driver wrote" in found["store"]["seen"]
    assert "not tried" in found["one lease"]["seen"]
    # The other two say nothing wrong, and nothing is left where the store is.
    assert found["nodes"]["seen"].count("(") == 3
    assert list((tmp_path / "c" / "out").iterdir()) == [tmp_path / "c" / "out" / "store"]


#: In the place of the interpreter that looks at the cluster: it has written into the store, and then …
BEGINNING = """#!{python}
import json, os, sys, time
given = json.loads(sys.argv[4])
os.makedirs(given["exchange"] + "/claims")
with os.fdopen(int(sys.argv[5]), "w") as stream:
    print(json.dumps({{"probe": "nodes", "patience": 0.1}}), file=stream)
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [("sys.exit('raylet is dead')", "ended with 1: raylet is dead"), ("time.sleep(60)", "no answer in 0.1 s")],
    ids=["dies", "hangs"],
)
def test_a_process_that_dies_or_hangs_while_it_looks_at_a_cluster_is_a_finding_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    program = tmp_path / "python"
    program.write_text(BEGINNING.format(python=sys.executable) + end)
    program.chmod(0o755)
    store = tmp_path / "store"
    store.mkdir()
    process = ClusterProcess("somewhere", str(store), ())
    monkeypatch.setattr("orchestrator.doctor.cluster_process.sys.executable", str(program))
    with examinations([Subject("cluster", process.begin, process.end)]) as (only,):
        (found,) = only.findings(lambda _: None)
    assert found.state == "wrong"
    assert said in found.seen
    assert list(store.iterdir()) == []


def test_an_address_without_a_cluster_is_wrong_and_says_what_to_start(tmp_path: Path) -> None:
    report = json.loads(sweep(tmp_path, "doctor", "--address", "127.0.0.1:1", "--json").stdout)
    (found,) = (each for each in report["findings"] if each["subject"] == "cluster")
    assert found["state"] == "wrong"
    assert "no Ray cluster answers at 127.0.0.1:1" in found["seen"]
    assert "ray start --head" in found["remedy"]


def test_nodes_behind_a_job_server_cannot_be_looked_at_from_here_which_is_told(tmp_path: Path) -> None:
    report = json.loads(sweep(tmp_path, "doctor", "--address", "http://127.0.0.1:1", "--json").stdout)
    server, nodes = (each for each in report["findings"] if each["subject"] == "cluster")
    assert server["state"] == "wrong"
    assert "ray job submit --address http://127.0.0.1:1 -- sweep doctor" in nodes["remedy"]


def test_what_cannot_be_seen_where_another_wrote_is_told_and_nothing_is_made_there(tmp_path: Path) -> None:
    node, place = _Node("n1"), tmp_path / "elsewhere"
    assert node.exchange(str(place), ["the driver"], {"n1": "node-1"}) == "does not see what the driver wrote"
    assert not place.exists()
    place.mkdir()
    (place / "the driver").write_text("the driver")
    assert node.exchange(str(place), ["the driver"], {"n1": "node-1"}) == ""
    assert (place / "node-1").read_text() == "node-1"
