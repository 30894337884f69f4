"""`make test-vllm`: a sweep on Ray whose samples and judgments a real vLLM makes, in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import transformers
from toy_sweep import write_sweep

from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.types import Manifest
from workers.data.responses import read_responses
from workers.tables import JUDGMENTS

#: The interpreter of an environment that has vLLM.
PYTHON = os.environ.get("VLLM_PYTHON", "")
pytestmark = [pytest.mark.ray, pytest.mark.skipif(not PYTHON, reason="make test-vllm names an interpreter with vLLM")]

DATA = Path(__file__).parents[2] / "sweeps" / "data" / "helpful.jsonl"
# With next to no nucleus the text is the most likely one, whichever engine samples it. 32 is the smallest size of an
# attention head that vLLM has kernels for on a CPU.
SWEEP = f"""\
name: vllm
question: Does vLLM sample in an environment of its own what transformers samples in the driver's?
axes: {{engine: [transformers, vllm]}}
stages:
  prompts: {{config: {{source: {{path: {DATA}}}, train: 8, test: 4}}}}
  demonstrations: {{config: {{source: {{path: {DATA}}}, limit: 40}}}}
  preferences: {{config: {{source: {{path: {DATA}}}, limit: 4}}}}
  policy:
    inputs: {{demonstrations: demonstrations}}
    config:
      model: {{tiny: {{layers: 1, hidden: 64, heads: 2, vocabulary: 400, context: 1024, steps: 20, batch_size: 8}}}}
  generate:
    inputs: {{policy: policy, prompts: prompts}}
    config: {{split: test, responses: 3, max_new_tokens: 8, top_p: 0.0001, engine: $engine}}
  judge_sample:
    inputs: {{preferences: preferences, judge: policy}}
    config: {{samples: 2, max_new_tokens: 8, temperature: 0, backend: {{engine: $engine}}}}
results: [generate, judge_sample]
tracking: false
"""


def opened(folder: Path) -> Session:
    rules = {"cpus": 2, "rules": [{"at": {"engine": "vllm"}, "python": PYTHON}]}
    runtime = json.dumps({"generate": rules, "judge_sample": rules})
    return open_session(write_sweep(folder, f"{SWEEP}runtime: {runtime}\n"), outputs=str(folder / "out"))


def made(session: Session, entry: str, engine: str) -> tuple[Manifest, Path]:
    steps = session.plan.by_entry[entry].steps
    (number,) = (each for each in steps if session.plan.coords(each)["engine"] == engine)
    address = session.plan.address(number)
    manifest = session.store.manifests([address])[address]
    assert isinstance(manifest, Manifest)
    return manifest, session.store.fetch(address)


def test_generate_and_judge_sample_run_under_the_interpreter_that_has_vllm(tmp_path: Path, local_ray: None) -> None:
    session = opened(tmp_path)
    engines: set[psutil.Process] = set()
    assert drive(session, on_event=lambda _: engines.update(running_engines())) == 0
    texts: dict[tuple[str, str], Any] = {}
    for engine in ("transformers", "vllm"):
        manifest, folder = made(session, "generate", engine)
        texts["generate", engine] = read_responses([folder]).response
        judged, judgments = made(session, "judge_sample", engine)
        texts["judge_sample", engine] = JUDGMENTS.read(judgments).column("text").to_pylist()
        for each in (manifest, judged):
            assert ("vllm" in each.versions) is (engine == "vllm")
            assert (each.versions["transformers"] == transformers.__version__) is (engine == "transformers")
    for entry in ("generate", "judge_sample"):
        assert texts[entry, "vllm"] == texts[entry, "transformers"]
    # An engine outlives the process that started it; it goes with the sweep all the same.
    assert engines
    _, left = psutil.wait_procs(list(engines), timeout=400)
    assert not left


def running_engines() -> list[psutil.Process]:
    """The engines of vLLM below this process, which has started Ray."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if each.name().startswith("VLLM::") else []
    return found
