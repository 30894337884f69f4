"""Who can talk to a run on one machine; docs/security.md tells it to people."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
@pytest.mark.skipif(not os.access("/proc/net/tcp", os.R_OK), reason="nobody can see here who listens")
def test_a_local_ray_listens_on_loopback_only_and_tells_a_stranger_nothing_but_its_metrics() -> None:
    # As a person starts it: with neither a mode nor a token.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    script = Path(__file__).with_name("listeners.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listeners = json.loads(done.stdout.splitlines()[-1])
    assert {"gcs_server", "raylet"} <= {each["process"] for each in listeners}
    elsewhere = [
        each for each in listeners if not ipaddress.ip_address(each["host"].removeprefix("::ffff:")).is_loopback
    ]
    assert elsewhere == []
    for each in listeners:
        if each["http"] and each["http"].startswith("200"):
            assert each["http"].startswith("200 # HELP "), each
        else:
            assert each["http"] == "401 Unauthorized: Missing authentication token" or set(each["grpc"]) == {
                "UNAUTHENTICATED"
            }, each
