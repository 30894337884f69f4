"""A cluster of three nodes, one of them wrong, and `sweep doctor` at it: `three_nodes.py FOLDER ARGUMENT...`.

The wrong node has another version of numpy, a name of its own, and something else where the others have the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from servers import kill_group

from orchestrator.cli import main

#: Within namespaces of mounts and of host names.
WRONG = 'hostname wrong-node && mount -t tmpfs tmpfs "$STORE" && exec ray start --address "$HEAD" --num-cpus 1 --block'


def wrong_node(folder: Path, store: Path, head: str) -> subprocess.Popen[bytes]:
    # What describes a package is found there before what describes the real one.
    described = folder / "numpy-1.0.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    environment = {
        **os.environ, "STORE": str(store), "HEAD": head, "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    command = ["unshare", "--mount", "--uts", "sh", "-c", WRONG]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "out" / "store").mkdir(parents=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    process = wrong_node(place / "other", place / "out", cluster.address)
    try:
        cluster.add_node(num_cpus=1)
        while len(cluster.global_state.node_table()) < 3:
            assert process.poll() is None, "the wrong node does not start"
            time.sleep(0.2)
        sys.argv = ["sweep", "doctor", str(place / "out"), *sys.argv[2:], "--address", cluster.address]
        main()
    finally:
        ray.shutdown()
        cluster.shutdown()
        kill_group(process)
