# One command each; everything lives in .venv beside this file.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
STUDY  ?= digits
WORKERS ?= 2
# A torch that is in .venv already stays as it is, with the torchvision beside it: a CPU build, say.
KEEP   := $(VENV)/.kept.txt
INSTALL = $(BIN)/python -m pip list --format=freeze 2>/dev/null | grep -E '^(torch|torchvision)==' > $(KEEP) || true; \
	echo "installing into $(VENV) (a few minutes the first time)"; \
	$(BIN)/python -m pip install --quiet --constraint $(KEEP) --editable

export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install sweep test test-fast check format bench docs pictures versions gpu-wheels gpu-check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# Installed again only when what is declared changes; nothing is installed outside .venv.
$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "needs Python >= 3.10 (PYTHON=... make)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(INSTALL) .
	@touch $@

$(DEV): $(STAMP)
	@$(INSTALL) '.[dev]'
	@touch -r $(STAMP) $@

install: $(STAMP)  ## create .venv and install what a sweep needs: the command is .venv/bin/routing

sweep: $(STAMP)  ## run the default study (STUDY=name for another), or go on with it: front, figures, report
	@$(BIN)/routing sweep $(STUDY) $(if $(wildcard results/$(STUDY)/study.yaml),--resume)

test: $(DEV)  ## the whole suite: the fast tests, then the slow ones, file by file in parallel
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS)
	@$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile

test-fast: $(DEV)  ## only the fast tests
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS)

bench: $(STAMP)  ## speed, as ratios measured side by side: the quick version, a few minutes
	@$(BIN)/routing bench all --quick

# What routing imports and a machine that has torch, torchvision and pytest may lack; Ray's wheel alone is 79 MB.
gpu-wheels: $(STAMP)  ## download the wheels that gpu-check needs on a bare machine without a network (Python 3.12)
	@rm -rf gpu-wheels
	@$(BIN)/python -m pip download --quiet --dest gpu-wheels --only-binary=:all: --implementation cp --python-version 3.12 \
		--platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 pydantic rich pyyaml
	@du -sm gpu-wheels | awk '{ print $$1 " MB in gpu-wheels"; exit $$1 >= 60 }'

gpu-check:  ## measure a GPU in 6 minutes (ARGS=--quick: 2): gpu.json and gpu.md; needs no .venv
	@PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) .ci/gpu-check $(ARGS)

check: $(DEV)  ## ruff, mypy, import contracts, and that sdist and wheel can be built
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@rm -rf build/dist && mkdir -p build/dist
	@$(BIN)/python -m build --no-isolation --outdir build/dist . > build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	@$(BIN)/python -m twine check --strict build/dist/*

docs: $(DEV)  ## the documentation as a site, build/site/index.html; a dead link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "wrote build/site/index.html"

pictures: $(DEV)  ## draw the pictures of the README again: the live view, the report
	@$(BIN)/python docs/pictures/draw.py

versions: $(DEV)  ## the fast tests on every Python with lowest and newest versions (CELLS="3.10-lowest 3.13-newest" for some)
	@$(BIN)/python tests/versions/matrix.py $(CELLS)

format: $(DEV)  ## let ruff format and fix what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove .venv and caches (results stay)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
