# Every target sets up what it needs on a fresh machine, and is quick the second time.
# Each has its own .venv-*/ and build/*/; `make clean` removes them.
.PHONY: help demo test test-c django-suite packages-suite lint asan fuzz docs bench bench-docs clean

DB ?= sqlite
ARGS ?=
SECONDS ?= 60

help:
	@echo "make demo [DB=postgresql] [SERVER=wsgi] [CHECK=1]"
	@echo "                                      the example site on http://127.0.0.1:8000"
	@echo "make test [ARGS='-k name']            C tests, then pytest on both engines in all modes"
	@echo "make django-suite [DJANGO=6.1] [DB=postgresql] [MODE=fiber|tasks|native|blocking] [APPS='queries']"
	@echo "                                      Django's own tests on vinyl, compared with Django's backend"
	@echo "make packages-suite [PACKAGE=django-filter] [DB=postgresql] [MODE=fiber|native|blocking]"
	@echo "                                      third parties' own tests on vinyl, compared likewise"
	@echo "make adversity [ARGS='-k kills']      faults in full: cancels, kills, cut networks, PgBouncer, a soak"
	@echo "make lint                             ruff, clang-format, clang-tidy, exported symbols"
	@echo "make asan [ARGS=...]                  the engines' tests under AddressSanitizer and UBSan"
	@echo "make bench [DB=postgresql] [ROUNDS=7] [WORKS='get_10 rows'] [CONTENDERS='vinyl, asyncpg']"
	@echo "                                      vinyl beside Django and its peers, as ratios"
	@echo "make fuzz [SECONDS=60]                libFuzzer over the Python-free C, then garbled values under ASan"
	@echo "make bench WORK=http [MIDDLEWARE=1]   requests a second beside Django's servers, on PostgreSQL"
	@echo "make bench WORK=instructions [DB=postgresql] [WORKS='get_10 create']"
	@echo "                                      instructions for a call, counted by callgrind"
	@echo "make bench-docs                       all of it, into docs/performance.md"
	@echo "make docs                             the documentation, into build/docs"

demo:
	@tools/run demo$(if $(filter postgresql,$(DB)),+postgresql) \
	  python tools/demo.py --db $(DB) $(if $(SERVER),--server $(SERVER)) $(if $(CHECK),--check)

# Without ARGS all of it, in processes side by side, each with servers of its own.
test: test-c
	@tools/run test pytest $(or $(ARGS),-n auto --maxprocesses 4 --dist loadfile)

test-c:
	@tools/run test meson test -C build/test --no-rebuild --print-errorlogs

# The figures go to build/adversity.jsonl; docs/reliability.md says what they mean.
adversity:
	@mkdir -p build && rm -f build/adversity.jsonl
	@tools/run test env VINYL_ADVERSITY=full VINYL_TEST_SECONDS=3600 \
	  VINYL_ADVERSITY_REPORT=$(CURDIR)/build/adversity.jsonl \
	  pytest -o faulthandler_timeout=3600 tests/adversity $(ARGS)
	@cat build/adversity.jsonl

django-suite:
	@tools/run suite env PYTHONPATH=tools python -m django_suite $(if $(DJANGO),--django $(DJANGO)) \
	  $(if $(DB),--db $(DB)) $(if $(MODE),--mode $(MODE)) $(if $(APPS),--apps "$(APPS)") $(if $(WITHOUT),--without "$(WITHOUT)") \
	  $(if $(PARALLEL),--parallel $(PARALLEL)) $(if $(SQLITE_FILE),--sqlite-file) $(if $(PLANS),--plans)

# What a package ships tests of; without PACKAGE those of all that tools/packages_suite knows.
packages-suite:
	@tools/run suite env PYTHONPATH=tools python -m packages_suite --db $(DB) $(if $(DJANGO),--django $(DJANGO)) \
	  $(if $(PACKAGE),--package "$(PACKAGE)") $(if $(MODE),--mode $(MODE))

lint:
	@tools/run test true
	@tools/run lint python tools/lint.py build/test

asan:
	@tools/run asan meson test -C build/asan --no-rebuild --print-errorlogs
	@# The leak tests count blocks of CPython's own allocator, which PYTHONMALLOC=malloc leaves out.
	@tools/run asan tools/with_asan pytest -s --ignore=tests/unit/test_row_leaks.py $(or $(ARGS),tests/unit)

# Each target for SECONDS; what broke one is left in build/fuzz.
fuzz:
	@tools/run fuzz python tools/fuzz.py --seconds $(SECONDS)
	@tools/run asan tools/with_asan python tests/fuzz/fuzz_decode.py --seconds $(SECONDS) --note build/fuzz/decode

bench:
ifeq ($(WORK),http)
	@tools/run bench+wrk python bench/web/run.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MIDDLEWARE),--middleware) $(ARGS)
else ifeq ($(WORK),instructions)
	@tools/run bench+valgrind python bench/count.py --engine $(DB) $(if $(WORKS),--works $(WORKS)) \
	  $(if $(CONTENDERS),--contenders "$(CONTENDERS)") $(ARGS)
else
	@tools/run bench python bench/run.py --engine $(DB) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WORKS),--works $(WORKS)) \
	  $(if $(CONTENDERS),--contenders "$(CONTENDERS)") $(ARGS)
endif

# All figures of docs/performance.md, one run after the other; half an hour on an idle machine.
bench-docs:
	@$(MAKE) --no-print-directory bench DB=postgresql ARGS=--docs
	@$(MAKE) --no-print-directory bench DB=sqlite ARGS=--docs
	@$(MAKE) --no-print-directory bench WORK=http ARGS=--docs
	@$(MAKE) --no-print-directory bench WORK=instructions DB=postgresql ARGS=--docs
	@$(MAKE) --no-print-directory bench WORK=instructions DB=sqlite ARGS=--docs

docs:
	@tools/run docs mkdocs build -q --strict
	@echo "build/docs/index.html"

clean:
	rm -rf build .venv-*
