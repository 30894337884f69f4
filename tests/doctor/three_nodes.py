"""A cluster of three nodes, one of them wrong, and `sweep doctor` at it: `python three_nodes.py ARGUMENT...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from orchestrator.cli import main

if __name__ == "__main__":
    # A version of a package that only this node has: its folder is found before the real one's.
    other = Path(sys.argv.pop(1))
    (other / "numpy-1.0.0.dist-info").mkdir(parents=True)
    (other / "numpy-1.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": os.pathsep.join([str(other), *sys.path[1:2]])})
    cluster.wait_for_nodes()
    sys.argv = ["sweep", "doctor", *sys.argv[1:], "--address", cluster.address]
    try:
        main()
    finally:
        ray.shutdown()
        cluster.shutdown()
