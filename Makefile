# One command for each of: set-up, demo, test, bench, format. `make help` lists them.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SNAKEMAKE := $(VENV)/bin/snakemake
SHELL := /bin/bash
AT_ONCE ?= 2

.PHONY: help setup demo demo-containers demo-language test pytest cluster drill drill-archive drill-busy \
  drill-parity drill-port drill-port-real drill-site bench lint format lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 24

setup: $(VENV)/workflow.installed ## what a login node needs: Snakemake and its SLURM plugin

demo: $(VENV)/cpu.installed ## a small study on this machine, in minutes
	@$(RUN) -m lockstep run demo/config.yaml

demo-containers: $(VENV)/workflow.installed ## the same in images that are built first (needs Apptainer)
	@$(RUN) -m lockstep doctor demo/config.yaml demo/containers.yaml
	@$(RUN) -m lockstep run demo/config.yaml demo/containers.yaml

demo-language: $(VENV)/cpu.installed ## pretrain a small BERT and fine-tune it (needs text: demo/language.yaml)
	@$(SNAKEMAKE) --profile profiles/local --configfile demo/language.yaml
	@$(SNAKEMAKE) --profile profiles/local --configfile demo/language-era.yaml

test: lint pytest ## every test that this machine can run

pytest: $(VENV)/dev.installed # the tests alone
	$(RUN) -m pytest --numprocesses $(AT_ONCE)

cluster: $(VENV)/dev.installed ## a shell on the login node of a SLURM cluster in a box (root)
	@$(RUN) -m tests.cluster.box try "$${LOCKSTEP_BOX:-/var/tmp/lockstep-box}"

drill: $(VENV)/dev.installed ## kill runs in a cluster in a box, more than fifty times (root; long)
	LOCKSTEP_REQUIRE=slurm $(RUN) -m pytest -s tests/cluster/drill.py

drill-archive: demo ## change an archive of the demo in 680 ways; which changes are found?
	@$(SNAKEMAKE) archive --profile profiles/local --configfile demo/config.yaml
	$(RUN) -m tests.archive.drill results/demo.crate.zip

drill-busy: $(VENV)/dev.installed ## train beside other work: is it noticed, is a verdict ever wrong? (minutes)
	$(RUN) -m benchmarks.busy

drill-parity: $(VENV)/dev.installed ## every known fault of one framework on every small preset; long climbs
	$(RUN) -m tests.parity.drill
	LOCKSTEP_REQUIRE=drill $(RUN) -m pytest -m drill tests/parity

drill-port: $(VENV)/dev.installed ## every seeded fault of a port: is it found, and its cause named?
	$(RUN) -m tests.port.drill

drill-port-real: $(VENV)/dev.installed ## the same in models of transformers 4.57 (downloads it)
	@folder=$$(mktemp -d); trap "rm -rf $$folder" EXIT; \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target $$folder \
	  transformers==4.57.1 huggingface-hub==0.36.0 tokenizers==0.22.1 && \
	PYTHONPATH=$$folder:workflow:. $(RUN) -m tests.port.real

drill-site: $(VENV)/dev.installed ## what sites do to a running study, in a cluster in a box (root; long)
	LOCKSTEP_REQUIRE=slurm $(RUN) -m pytest -s tests/cluster/drill_site.py

bench: $(VENV)/bench.installed ## measure what docs/performance.md reports
	$(RUN) -m benchmarks

lint: $(VENV)/dev.installed ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflow/rules
	$(VENV)/bin/mypy
	$(SNAKEMAKE) --lint --configfile demo/config.yaml

format: $(VENV)/dev.installed ## bring the code into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflow/rules

# Each lock is a superset of the one before, with the same versions.
$(VENV)/%.installed: requirements/%.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements/$*.txt into $(VENV) (once; minutes)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(RUN) -c 'import pathlib, sysconfig; \
	  path = pathlib.Path(sysconfig.get_path("purelib"), "lockstep.pth"); \
	  path.write_text(str(pathlib.Path("workflow").resolve()) + "\n")'
	@touch $@

lock: ## make the locked requirements anew (needs uv)
	cd requirements && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate dev.in -o dev.txt
	cd requirements && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate -c dev.txt bench.in -o bench.txt
	cd requirements && for name in cpu workflow; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate -c dev.txt $$name.in -o $$name.txt; done

clean: ## remove the environment (results and data stay)
	rm -rf $(VENV)
