PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all test-lowest lint audit constraints notebooks experiments bench clean

EXPERIMENTS := reparameterization latent-size reconstruction-loss generate gap

demo: $(READY)  ## fit a VAE to 1,797 real digits, show how good it is, whether to believe it, and mend it
	$(BIN)/ppl-vae train --data digits --latent-dim 2 --epochs 60 --output runs/demo --overwrite
	$(BIN)/ppl-vae diagnose runs/demo
	$(BIN)/ppl-vae repair runs/demo --epochs 30 --overwrite

test: $(READY)  ## the tests, on two cores in minutes
	$(BIN)/pytest -n 2

test-all: $(READY)  ## the slow, full-size versions too
	$(BIN)/pytest -n 2 -m "slow or not slow"

test-lowest:  ## the tests once more, with the lowest version of each dependency
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check -c constraints/lowest.txt --editable ".[dev]"
	$(VENV)-lowest/bin/pytest -n 2

constraints: $(READY)  ## write constraints/lowest.txt anew, after a change of pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --extra all --extra tensorboard --resolution lowest-direct \
		--python-version 3.11 --no-annotate --no-header --quiet --no-emit-package setuptools \
		| grep -v -E '^(nvidia|cuda|triton)' > constraints/lowest.txt

audit: $(READY)  ## known holes in what is installed, and in the lowest versions allowed
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip freeze --exclude-editable > $(VENV)/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r $(VENV)/installed.txt -r constraints/lowest.txt

lint: $(READY)  ## what pre-commit runs before each commit, once `.venv/bin/pre-commit install` was called
	$(BIN)/pre-commit run --all-files --verbose

notebooks: $(READY)  ## execute the notebooks at full size, in place
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

experiments: $(READY)  ## put the exercise's claims to the test on MNIST, each in minutes
	for name in $(EXPERIMENTS); do $(BIN)/ppl-vae experiment $$name --overwrite || exit; done

bench: $(READY)  ## measure docs/benchmarks.md; peers: pip install '.[bench]'
	$(BIN)/python benchmarks/svi_speed.py
	$(BIN)/python benchmarks/svi_speed.py --batch-size 20 --images 12000
	$(BIN)/python benchmarks/fits.py

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("ppl-vae needs Python 3.11 or newer: make PYTHON=/path/to/it" if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV): some 6 GB with torch's CUDA libraries, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
