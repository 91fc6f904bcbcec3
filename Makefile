# make demo     install into .venv and show it all on a small archive of its own
# make test     install with the test tools and run every check
# make container   build the image and run it (as root, on a Debian)
# make format   put the code in shape      make readme   write README's tables anew      make clean
# make fuzz     ask the server for a quarter of an hour what nobody should: FUZZ_EXAMPLES=1000 per operation
# make bench    measure a tenth of every shape against other tools: benchmarks/README.md

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test clients container format readme fuzz bench clean

demo: $(VENV)/.installed
	$(BIN)/tcia-mirror demo

test: $(VENV)/.installed-test clients
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest --cov -n 3 --dist worksteal

# Other tools that speak the API, each in an environment of its own: tests/clients drives them.
clients: .clients/tcia_utils-3.3.5 .clients/nbiatoolkit-1.3.1

.clients/%: | $(BIN)/pip
	$(BIN)/python -m venv $@.part
	$@.part/bin/python -m pip install --quiet --disable-pip-version-check $(subst -,==,$*)
	mv $@.part $@

container: $(VENV)/.installed-test
	.ci/container

format: $(VENV)/.installed-test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

readme: $(VENV)/.installed-test
	$(BIN)/python tests/house/readme_tables.py

# As in make test, but for how much is asked.
fuzz: $(VENV)/.installed-test
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),1000) $(BIN)/pytest -n 0 tests/serve/test_fuzz.py

bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	PYTHON=$(BIN)/python benchmarks/setup.sh
	$(BIN)/python -m benchmarks --scale 0.1

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* dist build

# Editable: an edit of the code needs no new installation, an edit of pyproject.toml makes one.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
