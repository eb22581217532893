# Two commands do everything on a fresh machine with Python 3.11+, make and a package index:
#   make demo   set up, pretrain SimSiam on the embedded images, score it, convert it for Detectron2
#   make test   set up with the test extras and Detectron2, run the whole test suite
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

# faiss-gpu and faiss-cpu are one module: exactly one of the two, by what the machine has.
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
FAISS := $(if $(GPU),gpu,cpu)
OTHER_FAISS := $(if $(GPU),cpu,gpu)

WORKERS = $(shell $(PYTHON) -c "import os; print(min(8, 1 + len(getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))(0))))")

CODE := siamtransfer pretrain eval convert scripts benchmarks tests

.PHONY: demo detection-demo segmentation-demo test test-thorough check format doctor faults faults-ranks chaos native-sweep bench rehearsal timm-families export-families docs docs-serve tutorials clean

demo: $(VENV)/.demo
	$(PY) scripts/demo.py

# Box and mask AP with the demo's backbone and with none, after make demo.
detection-demo: $(VENV)/.demo
	$(PY) scripts/detection_demo.py

# mIoU of frozen patches and of a fine-tuned FCN, and the attention of a small ViT, after make demo.
segmentation-demo: $(VENV)/.demo
	$(PY) scripts/segmentation_demo.py

# A process a core and one more, for some tests wait; a file of tests to each, the longest files first
# (tests/conftest.py).
test: $(VENV)/.test
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Further cases of what the suite shows: more networks, more moments of a signal.
test-thorough: $(VENV)/.test
	$(PY) -m pytest -n $(WORKERS) -m thorough

check: $(VENV)/.test
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m ruff check $(CODE)
	$(PY) -m mypy siamtransfer pretrain eval convert scripts benchmarks
	$(PY) -m pytest tests/test_imports.py

# A file of every family of timm's networks through the reader, compared with timm; hours on one core.
timm-families: $(VENV)/.test
	$(PY) scripts/timm_families.py

format: $(VENV)/.test
	$(PY) -m ruff format $(CODE)
	$(PY) -m ruff check --fix $(CODE)

# The checks of `siamtransfer doctor --gpu`, on the CPU at tiny size.
doctor: $(VENV)/.demo
	$(PY) -m siamtransfer doctor --cpu

# All tests that carry the mark `fault`, with their further cases and twenty times the inputs of fuzzed ones.
faults: $(VENV)/.test
	FUZZ_TIMES=20 $(PY) -m pytest -n $(WORKERS) --dist loadfile -m fault

# Random faults for a stated time, and for as long again those of whole programs; prints the seeds, and writes
# chaos.json.
CHAOS_MINUTES ?= 10
CHAOS_SEED ?= 0
chaos: $(VENV)/.test
	$(PY) -m benchmarks.chaos --minutes $(CHAOS_MINUTES) --seed $(CHAOS_SEED)
	$(PY) -m benchmarks.fault_programs --minutes $(CHAOS_MINUTES) --seed $(CHAOS_SEED)

# Native code that crashes or errs on this CPU: convolutions, networks, boxes, matrices.
native-sweep: $(VENV)/.test
	$(PY) -m benchmarks.native_sweep

bench: $(VENV)/.test
	$(PY) -m benchmarks.startup
	$(PY) -m benchmarks.data_path
	$(PY) -m benchmarks.train_step
	$(PY) -m benchmarks.conversion
	$(PY) -m benchmarks.knn
	$(PY) -m benchmarks.linear
	$(PY) -m benchmarks.coco_eval
	$(PY) -m benchmarks.miou
	$(PY) -m benchmarks.memory
	$(PY) -m benchmarks.checkpoints
	$(PY) -m benchmarks.launches
	$(PY) -m benchmarks.activation_memory
	$(PY) -m benchmarks.synchronisation
	$(PY) -m benchmarks.containers

# Ten minutes of ranks with delays, kills and signals at random moments; prints the seeds.
faults-ranks: $(VENV)/.test
	$(PY) -m benchmarks.fault_ranks

# ImageNet at full counts with narrow networks under a memory limit: an hour or two on two cores.
rehearsal: $(VENV)/.test
	$(PY) -m benchmarks.rehearsal

# A network of every kind to every target of siamtransfer export: half an hour on one core.
export-families: $(VENV)/.test
	$(PY) scripts/export_families.py

# The site of the documentation, in site/; a warning (a dead link, a page without a place) is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

# The tutorials of docs/tutorials/ at full size, every command timed: half an hour on two cores.
tutorials: $(VENV)/.test
	$(PY) scripts/tutorials.py

clean:
	rm -rf site $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is ' + sys.version) if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt scripts/get_detectron2.py scripts/release_patches.py | $(VENV)/bin/python
	$(PIP) -e ".[detection]"
	-$(PY) -m pip uninstall --quiet --yes faiss-$(OTHER_FAISS)
	$(PIP) -e ".[$(FAISS)]" || echo "faiss-$(FAISS) cannot be installed here: kNN will use torch's exact search"
	$(PY) scripts/get_detectron2.py || echo "no Detectron2: the conversion will be checked by keys and shapes only"
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[docs]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps lvis || echo "no lvis: its tests are skipped"
	if command -v chromium >/dev/null; then $(PIP) -e ".[browser]"; else echo "no chromium: tests of pages are skipped"; fi
	@touch $@
