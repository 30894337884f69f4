"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))
# Nothing may be downloaded in a test; the surroundings of the person who runs them must not leak in.
os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
# Keeps Ray from writing a token into the home folder of whoever runs the tests.
os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
for _name in ("SWEEP_OUTPUTS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "HH_RLHF"):
    os.environ.pop(_name, None)

import toy  # noqa: E402

toy.install()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real local Ray whose workers know the toy stages."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "worker_process_setup_hook": "toy.install",
            "env_vars": {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        },
    )
    yield
    ray.shutdown()
