# Needs: Rust 1.95 or later (https://rustup.rs), a C compiler for the linker, make. Nothing else.

CARGO ?= cargo
export CARGO

.DEFAULT_GOAL := help
.PHONY: help demo test sim sim-bugs soak fuzz examples demo-c examples-c examples-cpp demo-python examples-python bench header abi-baseline lint sanitize install uninstall

help: ## what there is to make
	@echo 'raftz: Raft consensus as a library'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

demo: rust ## three processes, a leader killed, all killed, nothing lost; INPUT=path loads your file
	@$(CARGO) build --locked --profile quick -p raftz-examples --bin demo
	@target="$${CARGO_TARGET_DIR:-target}"; \
		"$$target/quick/demo" --data "$$target" $${INPUT:+--input "$$INPUT"}

test: rust ## every test
	$(CARGO) test --workspace --locked

# SEEDS=20000 or SECONDS=600 for more, FROM=1 to begin there, WITHOUT=kill,rot to leave kinds of faults
# out. Of one run: SEED=7, with TRACE=all of every message; of a part of it: UNTIL_US=1234567 and
# SKIP=3,5-9, faults by number. The program takes them from the environment, as RAFTZ_SIM_SEEDS and so on.
sim: rust ## simulated clusters under every fault, four minutes; SEEDS=20000 for more, SEED=7 for one
	@$(CARGO) run --quiet --locked --profile quick -p raftz-tests --bin raftz-sim
$(foreach name,SEEDS SECONDS FROM SEED UNTIL_US SKIP WITHOUT TRACE,\
	$(if $(filter command,$(origin $(name))),$(eval sim: export RAFTZ_SIM_$(name) := $($(name)))))

sim-bugs: rust ## does the simulator find each planted bug? prints what caught it, and after how long
	@RUSTFLAGS="--cfg raftz_bugs" CARGO_TARGET_DIR=target/bugs \
		$(CARGO) run --quiet --locked --profile quick -p raftz-tests --bin raftz-sim-bugs

soak: rust ## a million power cuts in memory, then ten minutes of random faults; RAFTZ_SOAK_SECONDS=60 for less
	RAFTZ_CRASH_STATES="$${RAFTZ_CRASH_STATES:-1000000}" \
		$(CARGO) test --locked --profile quick -p raftz-core --test wal -- cuts:: failing:: --nocapture
	@RAFTZ_SOAK_SECONDS="$${RAFTZ_SOAK_SECONDS:-600}" \
		$(CARGO) test --locked --profile quick -p raftz-tests --test soak

examples: rust ## the four examples, one after the other; each checks what it claims
	@set -e; for name in simple client cluster simulate; do \
		echo "== $$name"; \
		$(CARGO) run --quiet --locked -p raftz-examples --bin $$name; \
	done

# Installs into a folder of its own, `here`, for examples that are built with nothing but a compiler.
define install_here
set -e; mkdir -p "$${CARGO_TARGET_DIR:-target}/c"; here=$$(cd "$${CARGO_TARGET_DIR:-target}/c" && pwd); \
	$(MAKE) --no-print-directory --silent install \
		PROFILE=quick PREFIX="$$here" LIBDIR="$$here/lib" INCLUDEDIR="$$here/include" DESTDIR=
endef
example_flags := -Wall -Wextra -Wpedantic -Werror -O2 -pthread

define c_examples
@$(install_here); \
	for name in $(1); do \
		libs=; \
		echo "== $$name"; \
		if [ $$name = custom_storage ]; then \
			libs=-lsqlite3; \
			echo '#include <sqlite3.h>' | $(CC) -E - >/dev/null 2>&1 \
				|| { echo 'NOT RUN: it needs SQLite, sqlite3.h and libsqlite3'; continue; }; \
		fi; \
		$(CC) -std=c11 $(example_flags) -I"$$here/include" \
			examples/c/$$name*.c -L"$$here/lib" -lraftz $$libs -Wl,-rpath,"$$here/lib" -o "$$here/$$name"; \
		"$$here/$$name"; \
	done
endef

define cpp_examples
@$(install_here); \
	for name in $(1); do \
		$(CXX) -std=c++17 $(example_flags) -I"$$here/include" \
			examples/cpp/$$name.cpp -L"$$here/lib" -lraftz -Wl,-rpath,"$$here/lib" -o "$$here/$$name-cpp"; \
		echo "== $$name"; \
		"$$here/$$name-cpp"; \
	done
endef

demo-c: rust ## three processes in C, a leader killed, all killed, nothing lost
	$(call c_examples,cluster)

examples-c: rust ## the nine examples in C, one after the other; each checks what it claims
	$(call c_examples,simple client cluster event_loop bank bare_core simulate custom_storage custom_transport)

examples-cpp: rust ## the two examples in C++, one after the other; each checks what it claims
	$(call cpp_examples,simple cluster)

# Installs the package into an environment of its own, `env`.
define install_python
@set -e; env="$${CARGO_TARGET_DIR:-target}/python-env"; \
	python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'this needs Python 3.11 or later, with venv' >&2; exit 1; }; \
	python3 -m venv "$$env"; \
	CARGO_TARGET_DIR="$$(cd "$$env" && pwd)/cargo" "$$env/bin/pip" install --quiet \
		--disable-pip-version-check --config-settings=build-args="--profile quick" ./bindings/python
endef

demo-python: rust ## a cluster in one process, in Python, told line by line
	$(install_python); \
	"$$env/bin/python" -m raftz demo

examples-python: rust ## the three examples in Python, one after the other; each checks what it claims
	$(install_python); \
	for name in simple client cluster; do \
		echo "== $$name"; \
		"$$env/bin/python" "examples/python/$$name.py"; \
	done

bench: rust ## how fast it is on this machine
	$(CARGO) bench --locked -p raftz-core --features sim --bench speed --bench sim
	$(CARGO) bench --locked -p raftz-ffi --bench overhead
	$(CARGO) bench --locked -p raftz-python --bench overhead

fuzz: rust ## what outsiders can influence, an hour a target; RAFTZ_FUZZ_SECONDS=n for less
	@tests/fuzz/run

header: rust ## writes include/raftz.h and the list of symbols anew, from raftz-ffi
	@for part in the_committed exactly_what; do \
		RAFTZ_WRITE_HEADER=1 $(CARGO) test --quiet --locked -p raftz-ffi --test header $$part || exit 1; \
	done

# Refused where it would break programs that have the last one, unless the soname is another. BREAK=unreleased: nobody
# has the last one.
abi-baseline: rust ## keeps raftz.h as what later versions must go on with; see ARCHITECTURE.md
	@RAFTZ_WRITE_BASELINE=$(or $(BREAK),yes) $(CARGO) test --quiet --locked -p raftz-ffi --test abi \
		nothing_is_taken_from_programs_of_the_last_landing

sanitize: rust ## the C and C++ tests, with AddressSanitizer and ThreadSanitizer in the library as well; minutes
	@tests/c/sanitize

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export LIBDIR := $(LIBDIR)
install uninstall: export INCLUDEDIR := $(INCLUDEDIR)
install uninstall: export DESTDIR := $(DESTDIR)
PROFILE := release
install: export PROFILE := $(PROFILE)

install: rust ## the C library, to PREFIX=/usr/local, LIBDIR and INCLUDEDIR, all below DESTDIR=
	$(CARGO) build --locked --profile $(PROFILE) -p raftz-ffi --target-dir "$${CARGO_TARGET_DIR:-target}"
	@raftz-ffi/packaging/files install

uninstall: ## takes away what install put there; give it the same variables
	@raftz-ffi/packaging/files uninstall

lint: rust ## format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || { \
		echo 'raftz needs Rust: install it from https://rustup.rs, open a new shell, try again' >&2; exit 1; }
