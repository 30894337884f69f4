"""The process that looks at a cluster for `cluster_process`, and tells what it finds as lines of JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from orchestrator.doctor.cluster import cluster_probes
from orchestrator.doctor.examination import look
from orchestrator.doctor.finding import Finding


def main(given: str, descriptor: int) -> None:
    """Look at a cluster.

    Args:
        given: the arguments of `cluster_probes`, as JSON.
        descriptor: where to write; what else is printed here is Ray's.
    """
    with os.fdopen(descriptor, "w") as stream, cluster_probes(**json.loads(given)) as probes:
        for probe in probes:
            print(json.dumps({"probe": probe.name, "patience": probe.patience}), file=stream, flush=True)
            found = [each for each in look(probe) if isinstance(each, Finding)]
            for each in found:
                print(json.dumps(dataclasses.asdict(each)), file=stream, flush=True)
            if any(each.last for each in found):
                break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
