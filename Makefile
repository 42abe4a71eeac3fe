# Two commands do everything, set-up included: 'make reproduce' and 'make test'.
PROFILE ?= quick
DATA ?=
RESULTS ?= results
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed-from-lock
FIND_PYTHON := for p in python3.11 python3.12 python3.13 python3; do \
	  if command -v $$p >/dev/null 2>&1 && \
	     $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done

# With HASHES=1 each file is compared with its SHA-256; torch, of which each index has its own build, is not.
ifeq ($(HASHES),1)
LOCKED = --require-hashes --no-deps --requirement requirements-hashes.lock && \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps `grep '^torch==' requirements.lock`
else
LOCKED = --requirement requirements.lock
endif

.DEFAULT_GOAL := help
.PHONY: help env browser test test-all mutants mutmut lowest reproduce docs lint lock hashes clean

help:
	@echo "make reproduce                              embedded synthetic cohort, minutes on a laptop"
	@echo "make reproduce PROFILE=public DATA=<folder>  the same on real CT (RESULTS=<folder> for its runs)"
	@echo "make reproduce PROFILE=rehearsal             264 simulated readings, no CT, seconds"
	@echo "make test                                    the tests; make test-all: those that take long too"
	@echo "make docs                                    the documentation as pages, in site/"
	@echo "make mutants                                 small faults, each of which a test must find"
	@echo "make mutmut PACKAGE=stats N=60               a random sample of mutants, and who survives"
	@echo "make lowest                                  the tests with the lowest versions that are allowed"
	@echo "make env | lint | lock | hashes              environment (HASHES=1: files compared), style, pins"
	@echo "make clean                                   list the runs that YES=1 would remove"
	@echo ".venv/bin/python -m deeplung_nb segment --help   segment one CT"

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@base=`$(FIND_PYTHON)`; \
	if [ -z "$$base" ]; then echo "error: Python 3.11 or newer is needed, found `python3 --version 2>&1`"; exit 1; fi; \
	echo "installing the pinned environment into $(VENV) (once; a few minutes)"; \
	$$base -m venv --clear $(VENV) && \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check $(LOCKED) && \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	touch $(STAMP)

# Debian's package, where it may be installed; elsewhere the tests that need it say that they are skipped.
browser:
	@command -v chromium >/dev/null 2>&1 || \
	{ [ "`id -u`" = 0 ] && command -v apt-get >/dev/null 2>&1 && echo "installing chromium for the browser tests" && \
	  apt-get update -qq >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null 2>&1; } || \
	echo "no chromium here: the browser tests are skipped (apt-get install chromium)"

# Two processes of one thread each: torch's threads would only wait for each other.
# The statistics' tests alone are counted line by line: it costs a sixth of the time of whatever runs beside.
TESTS = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
STATISTICS = tests/test_stats_*.py --cov=deeplung_nb.stats --cov-report=term:skip-covered --cov-fail-under=95
OTHERS = --ignore-glob='*/test_stats_*.py'

test: env browser
	$(TESTS) -m "not nightly" $(STATISTICS)
	$(TESTS) -m "not nightly" $(OTHERS)

test-all: env browser
	$(TESTS) $(STATISTICS)
	$(TESTS) $(OTHERS)

reproduce: env
	$(PYTHON) -m deeplung_nb reproduce --profile "$(PROFILE)" --results "$(RESULTS)" $(if $(DATA),--data "$(DATA)") \
	  $(if $(WORKERS),--workers "$(WORKERS)")

docs: env
	$(PYTHON) tools/make_site.py

lint: env
	$(PYTHON) -m ruff check .
	$(PYTHON) -m basedpyright  # what is in .basedpyright/baseline.json is known, and may only fall

lock: env
	@( sed -n '/^#/p' requirements.lock; \
	  $(PYTHON) -m pip freeze --all --exclude-editable --disable-pip-version-check | \
	  sed -e 's/+cpu$$//' -e '/^pip==/d' ) > requirements.lock.new
	@mv requirements.lock.new requirements.lock && touch $(STAMP)

hashes:
	@work=`mktemp -d` && $(PYTHON) -m venv $$work/venv && \
	$$work/venv/bin/python -m pip install --quiet --disable-pip-version-check uv && \
	sed -e '/^#/d' -e '/^torch==/d' requirements.lock > $$work/wanted.txt && \
	( sed -n '/^#/p' requirements-hashes.lock; \
	  $$work/venv/bin/uv pip compile --quiet --generate-hashes --no-deps --no-annotate --no-header \
	    $$work/wanted.txt ) > $$work/hashes && \
	mv $$work/hashes requirements-hashes.lock; rm -rf $$work

# The lowest versions that pyproject.toml allows, in an environment of their own.
lowest:
	@work=`mktemp -d` && base=`$(FIND_PYTHON)` && $$base -m venv $$work/venv && \
	$$work/venv/bin/python -m pip install --quiet --disable-pip-version-check uv `grep '^torch==' requirements.lock` && \
	VIRTUAL_ENV=$$work/venv $$work/venv/bin/uv pip install --quiet --resolution lowest-direct \
	  --editable ".[imaging,network,cluster,widgets,notebooks,test]" && \
	OMP_NUM_THREADS=1 $$work/venv/bin/python -m pytest -n 2 --dist loadfile -m "not nightly and not browser"; \
	status=$$?; rm -rf $$work; exit $$status

# Trainings take hours: nothing goes without a second word, and the recorded example stays.
clean:
	@runs=`find "$(RESULTS)" -mindepth 1 -maxdepth 1 ! -name example 2>/dev/null`; \
	if [ -z "$$runs" ]; then echo "nothing to remove in $(RESULTS)"; \
	elif [ "$(YES)" = 1 ]; then printf '%s\n' "$$runs" | xargs -d '\n' rm -rf --; echo "removed"; \
	else printf '%s\n' "$$runs"; echo "remove these with their trained networks: make clean YES=1"; fi

# Small faults that no test may let pass, each in a copy (tests/mutants.toml). MUTANT=words chooses.
mutants:
	@OMP_NUM_THREADS=1 $(PYTHON) tools/check_mutants.py $(MUTANT)

# mutmut's mutants of a package (stats, imaging, reading, cohorts), N of them drawn by SEED.
N ?= 60
SEED ?= 1
mutmut:
	@work=`mktemp -d` && base=`$(FIND_PYTHON)` && $$base -m venv $$work/venv && \
	$$work/venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock mutmut==3.8.1 && \
	$$work/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	$$work/venv/bin/python tools/sample_mutants.py $(PACKAGE) $(N) $(SEED); \
	status=$$?; rm -rf $$work; exit $$status
