"""What follows from what several nodes tell of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holders import dead_pid

from orchestrator.doctor.finding import Finding, ok, warning
from orchestrator.doctor.node import Facts, clocks, clones, compare, devices_of_ray
from orchestrator.store.process import UNKNOWN, Process, this_process

HERE = Facts("one", {"Python": "3.11.7", "numpy": "2.4", "vllm": None}, Process("a", 1, 1), 0, (ok("cache", "1 GB"),))


def told(**nodes: Facts) -> dict[str, Finding]:
    return {each.name: each for each in compare(HERE.versions, nodes)}


def other(**changes: Any) -> Facts:
    return replace(HERE, **{"host": "two", "process": Process("b", 1, 1), **changes})


def test_nodes_that_are_alike_are_told_in_one_line_each() -> None:
    found = told(n1=HERE, n2=other())
    assert {each.state for each in found.values()} == {"ok"}
    assert found["cache"].seen == "1 GB (2 nodes)"
    assert found["versions"].seen.startswith("2 that matter")


def test_another_version_names_the_node_and_what_to_install() -> None:
    found = told(n1=HERE, n2=other(versions={**HERE.versions, "numpy": "1.0"}), n3=other(host="three"))
    assert found["versions"].state == "wrong"
    assert "numpy is 2.4 on the driver, and 1.0 on n2" in found["versions"].seen
    assert found["versions"].remedy.startswith("pip install numpy==2.4")
    found = told(n1=other(versions={**HERE.versions, "numpy": None}))
    assert "not installed on n1" in found["versions"].seen
    # The driver needs none of what only a stage on another node may use.
    assert told(n1=other(versions={**HERE.versions, "vllm": "0.9"}))["versions"].state == "warning"


def test_this_package_s_own_version_may_differ_since_its_code_travels() -> None:
    here = {"alignment-sweeps": "0.1.0"}
    (found, *_) = compare(here, {"n1": other(versions={"alignment-sweeps": "0.0.9"})})
    assert found.state == "warning"


def test_two_nodes_of_one_name_are_told_with_what_relies_on_it() -> None:
    found = told(n1=HERE, n2=other(host="one"))["host names"]
    assert found.state == "ok"
    assert "nothing relies on it but who reads records" in found.seen
    unknown = told(n1=HERE, n2=other(process=Process(UNKNOWN, 1, 0)))["host names"]
    assert unknown.state == "warning"


def test_clones_of_one_machine_that_take_the_living_for_dead_are_wrong() -> None:
    mine = this_process()
    assert not mine.gone()
    elsewhere = Process(mine.space, dead_pid(), mine.started)
    assert elsewhere.gone()
    found = clones({"n1": HERE, "n2": other()}, {"n1": ["n2"], "n2": []})
    assert found.state == "wrong"
    assert "n1 takes living processes of n2 for dead" in found.seen
    assert clones({"n1": HERE}, {"n1": []}).state == "ok"


def test_clocks_are_wrong_from_where_s3_refuses_what_is_signed() -> None:
    assert clocks({"n1": 0.4, "n2": -3}).state == "ok"
    assert clocks({"n1": 0.4, "n2": -30}).state == "warning"
    found = clocks({"n1": 1000.0})
    assert found.state == "wrong"
    assert "n1 is 1,000 s ahead" in found.seen


def test_gpus_that_ray_gives_away_and_nobody_has_are_wrong() -> None:
    found = devices_of_ray({"n1": HERE, "n2": other(gpus=2)}, {"n1": 1.0, "n2": 2.0})
    assert found.state == "wrong"
    assert found.seen == "n1: Ray gives away 1, nvidia-smi shows 0"


def test_what_only_some_nodes_lack_names_them_and_what_all_lack_says_so() -> None:
    full = warning("cache", "1 MB free", "free some")
    assert told(n1=HERE, n2=other(findings=(full,)))["cache"].seen == "n2: 1 MB free"
    assert told(n1=other(findings=(full,)), n2=other(findings=(full,)))["cache"].seen == "all 2 nodes: 1 MB free"
