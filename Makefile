# quantpipe: `make help` lists the targets. Output goes under $(B).
.DEFAULT_GOAL := all
VERSION := 0.1.0
SANITIZE ?=
comma := ,
B ?= build/$(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)
include config.mk
include rules.mk
include pipelines/demo.mk

.PHONY: all tools libs tests benches setup fetch-model data demo check check-built check-layers bench interop install fuzz format clean config help

all: tools ## build the tools (default)
tools: $(addprefix $(B)/bin/,$(TOOLS))
libs: $(ARCHIVES)
tests: tools $(TESTS) $(TEST_TOOLS)
benches: tools $(BENCHES)

setup: ## install what is missing (apt-get, sudo when not root)
	@scripts/setup.sh

fetch-model: ## bring the demo's model into the user's cache (98 MB)
	@scripts/fetch_model.sh

data: ## bring the standard evaluation sets into the user's cache (DATA=DIR: there), for qmc --data
	@scripts/fetch_data.sh $(DATA)

check: setup ## set up, build, and pass all tests
	@$(MAKE) --no-print-directory check-built

check-built: tests check-layers
	@B='$(B)' tests/run.sh

check-layers: ## the layer rule, file limits, who may include what
	@scripts/check_layers.sh

bench: setup ## kernels and engine against this machine's limits and the libraries here
	@$(MAKE) --no-print-directory benches
	@for b in $(BENCHES); do echo "== $${b##*/}"; $$b || exit 1; done

install: setup ## copy tools and gate files under PREFIX (default /usr/local), honouring DESTDIR
	@$(MAKE) --no-print-directory tools
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/quantpipe/gates
	install -m 755 $(wildcard $(B)/bin/q*) $(addprefix $(B)/bin/,$(TOOLS)) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard pipelines/gates/*.json) $(DESTDIR)$(PREFIX)/share/quantpipe/gates

interop: setup ## checkpoints against the peers that load and write them: ROWS='nf4 gptq' (default all), DATA=DIR, INTEROP_ENV=DIR; installs several GB into the cache
	@$(MAKE) --no-print-directory tools
	@B='$(B)' DATA='$(DATA)' python3 tests/interop/interop.py $(ROWS)

TARGET ?= stream
TIME ?= 60
fuzz: ## fuzz one reader with clang's libFuzzer: TARGET=stream|safetensors|gguf|tokenizer|template TIME=seconds
	@$(MAKE) --no-print-directory B=build/fuzz CC=clang CFLAGS='-O1 -g' SANITIZE=fuzzer-no-link,address,undefined build/fuzz/fuzz/$(TARGET)
	@mkdir -p build/fuzz/corpus/$(TARGET) build/fuzz/artifacts
	build/fuzz/fuzz/$(TARGET) -max_total_time=$(TIME) -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=10 \
	    -artifact_prefix=build/fuzz/artifacts/$(TARGET)- build/fuzz/corpus/$(TARGET) $(wildcard tests/fuzz/seeds/$(TARGET))

format: ## clang-format over all sources
	clang-format -i $$(git ls-files '*.c' '*.h')

config: ## print what was detected
	@rm -f $(DETECTED)
	@BLAS='$(BLAS)' DNNL='$(DNNL)' scripts/detect.sh $(DETECTED) '$(CC)'

clean: ## remove all build output
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo '  variables           B=DIR CC= CFLAGS= SANITIZE=address,undefined BLAS=0|1 DNNL=0|1 DATA=DIR (demo) PREFIX= WERROR=1'
