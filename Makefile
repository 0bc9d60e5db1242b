# Two commands are enough: `make demo` and `make test`. Each sets up .venv where it is missing or out of date.
PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: demo test check bench bench-more docs site examples clean

demo: .venv/.installed
	$(RUN) -m rethinking demo

test: check
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# What needs no test to run, a minute; the pre-commit hooks are these commands.
check: .venv/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Measures an epoch against the bare step; about ten minutes on two cores. Writes results/bench.csv and its table.
bench: .venv/.installed
	$(RUN) benchmarks/epoch_against_step.py --out results/bench.csv
	$(RUN) -m tools.documents

# Measures runs at once, growth and floor; takes longer. Writes results/performance.csv and its tables.
bench-more: .venv/.installed
	$(RUN) benchmarks/many_at_once.py --out results/performance.csv
	$(RUN) benchmarks/stacked_epochs.py --out results/performance.csv
	$(RUN) benchmarks/streamed.py --out results/performance.csv
	$(RUN) benchmarks/whole_reproduction.py --out results/performance.csv
	$(RUN) benchmarks/forms_of_the_step.py --out results/performance.csv
	$(RUN) benchmarks/growth.py --out results/performance.csv
	$(RUN) benchmarks/floor.py --out results/performance.csv
	$(RUN) -m tools.documents

# Writes the documents' tables and the pages of results/ from results/.
docs: .venv/.installed
	$(RUN) -m tools.documents
	$(RUN) -m tools.pages

# Builds the documentation site into build/site; open build/site/index.html.
site: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

# Runs the notebooks of examples/, and writes their outputs into them; a few minutes on two cores.
examples: .venv/.installed
	$(RUN) -m tools.examples

clean:
	rm -rf .venv .mypy_cache .ruff_cache build

# Python compiles what it imports, once; to compile all packages would take as long as to copy them.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --no-compile --requirement requirements.txt
	touch $@
