# Everything runs in .venv, which is made here and never needs activating. `make help` lists the commands.
SHELL := bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some hundred processes start here: what one has compiled of torch the others read, also where images forbid to keep it
export PYTHONDONTWRITEBYTECODE :=
PYTHON ?= python3
NAMES ?=
ARGS ?=
bin := .venv/bin
py := $(bin)/python
# Threads that wait for each other let go of their processor: a test more than there are processors runs at a time
pytest = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(bin)/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)
facts := pyproject.toml settings.ini setup.py

# $(call apt,PACKAGE): install it as root, or through a sudo that asks for no password; else say what to type
define apt
if [ "$$(id -u)" = 0 ]; then as='env'; \
elif sudo -n true 2>/dev/null; then as='sudo -n env'; \
else echo 'Missing: $(1). Please run:  sudo apt-get install $(1)' >&2; exit 1; fi; \
$$as apt-get update -qq && $$as DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1)
endef

# PyPI's torch for Linux brings CUDA, gigabytes of it. Without an NVIDIA GPU take the one of PyTorch's own index, if that answers
define cpu_torch
[ "$$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null || \
$(py) -m pip install -q --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu torch torchvision 2>/dev/null || \
echo "PyTorch's own index does not answer: torch comes from PyPI"
endef

.PHONY: help run play test units bounds chromium prepare outputs readme prose docs clean
help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: .venv/run.stamp ## Train a spiking LeNet and its ANN twin on the embedded digits, compare them in a table and in pictures (out/)
	$(bin)/snnkit-compare --data digits --out out --resume $(ARGS)

play: .venv/lab.stamp ## Open the explorers in JupyterLab: sliders for the encoder, the neuron, the gradient and trained networks
	$(py) tools/play.py $(ARGS)

test: .venv/test.stamp chromium ## Check everything: modules in sync, notebooks, README, prose, docs, tests
	$(py) tools/sync.py
	$(py) tools/readme.py --check
	$(py) tools/prose.py
	$(py) tools/docs.py --out .venv/docs & site=$$!; $(py) tools/notebooks.py; shown=$$?; wait $$site && exit $$shown # one at the other's waiting times
	SNNKIT_SITE=.venv/docs $(pytest)

units: .venv/test.stamp chromium ## The tests alone, which also run where the docs cannot be rendered (Python 3.10)
	$(pytest)

bounds: ## Test with the lowest releases that settings.ini allows; ARGS=newest or colab for others, PYTHON=python3.13 for another Python
	$(PYTHON) tools/bounds.py $(ARGS)

prepare: .venv/test.stamp ## After editing notebooks: export the modules, clean the notebooks, make the README and the badges
	$(bin)/nbdev-export
	$(bin)/nbdev-clean
	$(py) tools/readme.py

outputs: .venv/test.stamp ## Run the notebooks and store what they show; NAMES=02_neuron.ipynb for only some
	$(py) tools/notebooks.py --save $(NAMES)

readme: .venv/test.stamp ## Make README.md, and the table in it, from nbs/index.ipynb; give every notebook its badge
	$(py) tools/readme.py

prose: .venv/test.stamp ## List sentences of the notebooks that are hard to read; NAMES=02_neuron.ipynb for only some
	$(py) tools/prose.py $(NAMES)

docs: .venv/test.stamp ## Build the docs site for reading here, with search and without a server: open _docs/index.html
	$(py) tools/docs.py --out _docs

clean: ## Remove what these commands have made, but for .venv
	rm -rf out _proc _docs build dist *.egg-info .pytest_cache .hypothesis nbs/nbdev.yml
	find nbs snnkit tests tools -name __pycache__ -prune -exec rm -rf {} +

# Debian and Ubuntu keep what makes environments in a package of its own
$(py):
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || ( $(call apt,python3-venv) )
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(cpu_torch)

# Made anew when what it needs changes
.venv/run.stamp: $(facts) | $(py)
	@echo 'Installing into .venv: a few minutes the first time'
	$(py) -m pip install -q --no-compile -e .
	touch $@

.venv/lab.stamp: $(facts) | $(py)
	@echo 'Installing into .venv, with JupyterLab: a few minutes the first time'
	$(py) -m pip install -q --no-compile -e '.[lab]'
	touch .venv/run.stamp $@

.venv/test.stamp: $(facts) | $(py)
	@echo 'Installing into .venv, with what the tests need: a few minutes the first time'
	$(py) -m pip install -q --no-compile -e '.[lab,dev,peers]' # most modules are never imported
	touch .venv/run.stamp .venv/lab.stamp $@

# Without Chromium `make test` goes on, and the browser test says that it skips
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || ( $(call apt,chromium) ) || true
