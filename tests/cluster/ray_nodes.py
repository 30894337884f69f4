"""Ray clusters of several nodes on this machine, each in a process of its own that does what it is told.

`python ray_nodes.py FOLDER [TYPES.yaml]` starts the head, reads requests as lines of JSON, and answers each with one.
It ends, and all nodes with it, when nobody can send a request any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from servers import free_port

#: The node of a head that an autoscaler is to know.
_HEAD = "f" * 51 + "00000"


class RayNodes:
    """A cluster whose head has no cores, unless an autoscaler runs on it; nodes come and go as a test says.

    Node ids are Ray's, in hexadecimal.
    """

    def __init__(self, environment: Mapping[str, str], node_types: Mapping[str, Any] | None = None) -> None:
        """Start the head.

        Args:
            environment: more variables of all processes of the cluster.
            node_types: what an autoscaler may start, as in `available_node_types`; without them there is no autoscaler.
        """
        # Not pytest's folder: the path of a Unix socket may have at most 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        line = [sys.executable, __file__, str(self._folder)]
        if node_types is not None:
            (self._folder / "types.yaml").write_text(yaml.safe_dump(dict(node_types)))
            line.append(str(self._folder / "types.yaml"))
        with (self._folder / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                env={
                    **os.environ, **environment, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                },
            )  # fmt: skip
        try:
            self.address: str = self._ask("address")
        except BaseException:
            self.end()
            raise

    def join(self, **parameters: Any) -> str:
        """A node joins; returns its id.

        Args:
            parameters: those of `Cluster.add_node`, such as num_cpus, num_gpus, memory, labels and env_vars.
        """
        return str(self._ask("join", **parameters))

    def crash(self, node: str) -> None:
        """All processes of a node die at once; Ray takes some ten seconds to believe it."""
        self._ask("remove", node=node, graceful=False)

    def leave(self, node: str) -> None:
        """A node takes its leave."""
        self._ask("remove", node=node, graceful=True)

    def drain(self, node: str, seconds: int = 600) -> None:
        """As by `ray drain-node`, on the notice that a machine is taken away."""
        self._ask("drain", node=node, seconds=seconds)

    def joined(self) -> list[str]:
        """The nodes that were told to join, and are still there."""
        return list(self._ask("joined"))

    def alive(self) -> dict[str, dict[str, float]]:
        """Living node -> its resources, as Ray believes."""
        return dict(self._ask("alive"))

    def demand(self) -> int:
        """How many tasks, actors and placement groups wait for resources that nobody has, as the autoscaler sees it."""
        return int(self._ask("demand"))

    def end(self) -> None:
        """End all processes of the cluster, whatever they do."""
        with self._server:
            _end_children(psutil.Process(self._server.pid))
            self._server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, name: str, **arguments: Any) -> Any:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps([name, arguments]) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the cluster's process ended: {self._said()}")
        found, error = json.loads(answer)
        if error:
            raise RuntimeError(f"{name} {arguments}: {error}")
        return found

    def _said(self) -> str:
        return (self._folder / "server.log").read_text()[-3000:]


def _end_children(parent: psutil.Process) -> None:
    """Kill all that a process has started, and what that started since."""
    while children := [each for each in parent.children(recursive=True) if _is_alive(each)]:
        for each in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start, which a machine that runs three test suites may not keep."""
    for last in (False, False, True):
        try:
            return start()
        except Exception:
            if last:
                raise
            traceback.print_exc()
    raise AssertionError


class _Nodes:
    """The cluster, in its own process."""

    def __init__(self, folder: Path) -> None:
        import ray._private.utils
        from ray.cluster_utils import Cluster

        # Who calls ray.init() on this machine is not to find this cluster.
        ray._private.utils.write_ray_address = lambda *_, **__: None
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder / "t")}
        self._cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._nodes: dict[str, Any] = {}

    def address(self) -> str:
        return str(self._cluster.address)

    def join(self, **parameters: Any) -> str:
        node = _patiently(lambda: self._cluster.add_node(**parameters))
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def remove(self, node: str, graceful: bool) -> None:
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=graceful)

    def joined(self) -> list[str]:
        return list(self._nodes)

    def drain(self, node: str, seconds: int) -> None:
        # What the command does, which takes longer to start than a node of these tests has left.
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        accepted, why_not = GcsClient(address=self.address()).drain_node(
            node,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "the machine is taken away",
            int((time.time() + seconds) * 1000),
        )
        assert accepted, why_not

    def alive(self) -> dict[str, dict[str, float]]:
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(self.address())
        return {
            each.node_id: {one.resource_name: one.total for one in each.resource_usage.usage}
            for each in [*status.active_nodes, *status.idle_nodes]
        }

    def demand(self) -> int:
        from ray.autoscaler.v2.sdk import get_cluster_status

        demands = get_cluster_status(self.address()).resource_demands
        tasks = [count.count for each in demands.ray_task_actor_demand for count in each.bundles_by_count]
        return sum(tasks) + len(demands.placement_group_demand) + len(demands.cluster_constraint_demand)


class _Autoscaled(_Nodes):
    """A head of two cores, and an autoscaler that starts nodes on this machine (version 2; 1 never ends a node)."""

    def __init__(self, folder: Path, types: Path) -> None:
        from ray.util import get_node_ip_address

        self._address = f"{get_node_ip_address()}:{free_port()}"
        config = folder / "autoscaler.yaml"
        config.write_text(yaml.safe_dump(self._config(yaml.safe_load(types.read_text()))))
        environment = {
            **os.environ, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD,
            "RAY_NODE_TYPE_NAME": "ray.head.default",
        }  # fmt: skip
        command = [
            "ray", "start", "--head", "--block", "--port", self._address.rpartition(":")[2], "--num-cpus", "2",
            "--num-gpus", "0", "--include-dashboard", "false", "--dashboard-agent-listen-port", str(free_port()),
            "--ray-client-server-port", str(free_port()), "--autoscaling-config", str(config),
            "--temp-dir", str(folder / "t"),
        ]  # fmt: skip
        self._head = subprocess.Popen(command, env=environment, stdout=sys.stderr)
        until = time.monotonic() + 100
        while True:
            assert self._head.poll() is None, "the head ended"
            try:
                if self.alive():
                    return
            except Exception:
                if time.monotonic() > until:
                    raise
            time.sleep(0.2)

    def address(self) -> str:
        return self._address

    def _config(self, types: dict[str, Any]) -> dict[str, Any]:
        # Ray's own type fake_multinode reads a file that is not in its wheel.
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": self._address, "launch_multiple": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        }  # fmt: skip
        head = {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0}
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "fake", "provider": provider, "upscaling_speed": 10, "idle_timeout_minutes": 0.05,
            "max_workers": sum(each["max_workers"] for each in types.values()), "head_node_type": "ray.head.default",
            "available_node_types": {"ray.head.default": head, **types},
            "auth": {}, "file_mounts": {}, "cluster_synced_files": [], **{f"{each}_commands": [] for each in commands},
        }  # fmt: skip


def _serve(folder: Path, types: Sequence[str]) -> None:
    cluster = _Autoscaled(folder, Path(types[0])) if types else _Nodes(folder)
    # Ray's processes write to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        found, error = None, None
        try:
            found = getattr(cluster, name)(**arguments)
        except Exception as raised:
            traceback.print_exc()
            error = repr(raised)
        answers.write(json.dumps([found, error]) + "\n")
        answers.flush()
    _end_children(psutil.Process())
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
