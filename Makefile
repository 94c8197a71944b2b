# On a fresh machine with Python 3.11 or later, make and a network:
#
#   make demo    sets everything up and takes you on the tour
#   make test    runs every test, with the oldest and the newest Python there is
#
# Also: make check (lint, format, types), bench, man (from the help texts, into build/man), live-servers, lock, clean.
# PYTHON=/path/to/python3.12 uses that one alone. TESTS="-k audit" is handed to pytest.

# No target of this file may start in an environment that another project left behind.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV

PIP := -m pip --disable-pip-version-check --quiet
SOURCES := $(shell find broker backends bin -type f ! -name '*.pyc')
TESTS ?=

.PHONY: demo test check bench man live-servers lock clean
.DELETE_ON_ERROR:

demo: .venv/.demo
	.venv/bin/mcp-broker demo

# Everything with the oldest, from the working tree. With the newest what needs no root, and as it is installed: from
# the wheel, by the launcher. CI's list of what must run belongs to the first run, which skips nothing for want of root.
test: .venv/.dev .venv-newest/.installed live-servers
	@echo "oldest: $$(.venv/bin/python -VV)"
	.venv/bin/python -m pytest $(TESTS)
	@echo "newest: $$(.venv-newest/bin/python -VV)"
	@if cmp -s .venv/.python .venv-newest/.python; then \
	    echo "this machine has one Python only: not tested a second time"; \
	else \
	    set -x; env -u MCP_BROKER_REQUIRED_LIVE .venv-newest/bin/python -m pytest -m "not root" $(TESTS); \
	fi

check: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv-newest/.installed
	.venv-newest/bin/python -m benchmarks

man: .venv/.demo
	PYTHONPATH=. .venv/bin/python tools/man.py build/man

# Other people's MCP servers and clients, which tests/live runs: from PyPI, and from npm where there is one.
live-servers: .cache/live/python/.installed $(if $(shell command -v npm),.cache/live/npm/.installed)

lock: .venv/.dev
	.venv/bin/python tools/lock.py

clean:
	rm -rf .venv .venv-newest .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is made once and filled when what it is made from has changed. The stamps are the only memory.

.venv/.python .venv-newest/.python: tools/pythons
	@pythons=$$(tools/pythons) && \
	    case $@ in .venv/*) python=$$(echo "$$pythons" | sed -n 1p) ;; *) python=$$(echo "$$pythons" | sed -n 2p) ;; esac && \
	    echo "making $(@D) with $$python" && \
	    rm -rf $(@D) && "$$python" -m venv $(@D) && echo "$$python" > $@

.venv/.demo: .venv/.python requirements/demo.txt pyproject.toml bin/mcp-broker broker/__init__.py
	.venv/bin/python $(PIP) install --require-hashes --only-binary :all: -r requirements/demo.txt
	.venv/bin/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.demo requirements/dev.txt
	.venv/bin/python $(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

.venv-newest/.dev: .venv-newest/.python requirements/dev.txt
	.venv-newest/bin/python $(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

.venv-newest/.installed: .venv-newest/.dev pyproject.toml $(SOURCES)
	rm -rf build
	.venv-newest/bin/python $(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build && touch $@

.cache/live/python/.installed: .venv/.python requirements/live.txt
	rm -rf $(@D)
	.venv/bin/python -m venv $(@D)
	$(@D)/bin/python $(PIP) install --require-hashes --only-binary :all: -r requirements/live.txt
	@touch $@

NPM_FILES := $(addprefix tests/live/npm/,package.json package-lock.json .npmrc)

.cache/live/npm/.installed: $(NPM_FILES)
	rm -rf $(@D) && mkdir -p $(@D) && cp $(NPM_FILES) $(@D)
	cd $(@D) && npm ci --silent
	@touch $@
