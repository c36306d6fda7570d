# How sources become archives (one a layer), tools, tests, benches and fuzzers.
Q := $(if $(V),,@)
LAYERS := base stats stream text model backend engine quant eval
REVERSED := eval quant engine backend model text stream stats base
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wvla -Wconversion -Wno-sign-conversion $(if $(WERROR),-Werror)
CPPFLAGS_ALL = -std=gnu11 -Ilib/common -D_GNU_SOURCE -DQP_VERSION='"$(VERSION)"' $(foreach i,$(ISAS),-DQP_ISA_$(i)) $(CPPFLAGS)
SAN_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
CFLAGS_ALL = $(CPPFLAGS_ALL) $(WARN) $(CFLAGS) $(SAN_FLAGS) -pthread -MMD -MP
LIBS = -Wl,--as-needed $(DETECTED_LIBS) -lm

# Instruction sets by folder; nothing else is compiled with -m flags, so one build runs on any x86-64.
ISA_ref := -O2 -ffp-contract=off
ISA_avx2 := -O3 -mavx2 -mfma -mf16c -Wno-conversion
ISA_avx512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -Wno-conversion
ISA_avx512_vnni := $(ISA_avx512) -mavx512vnni
ISA_avx512_bf16 := $(ISA_avx512) -mavx512bf16
ISA_OFF := $(filter-out $(ISAS),avx2 avx512 avx512_vnni avx512_bf16)

layer_src = $(filter-out $(foreach i,$(ISA_OFF),lib/common/backend/cpu/$(i)/%),$(shell find lib/common/$(1) -name '*.c' | sort))
obj = $(patsubst %.c,$(B)/%.o,$(1))
ARCHIVES := $(foreach l,$(LAYERS),$(B)/lib/libqp_$(l).a)
LINK_LAYERS := $(foreach l,$(REVERSED),$(B)/lib/libqp_$(l).a)

define LAYER_RULE
SRC_$(1) := $(call layer_src,$(1))
$(B)/lib/libqp_$(1).a: $$(call obj,$$(SRC_$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call LAYER_RULE,$(l))))

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@$(if $(V),:,echo '  CC    $<')
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA_$(notdir $(patsubst %/,%,$(dir $<)))) -c -o $@ $<

TOOLS := $(notdir $(patsubst %/,%,$(dir $(wildcard tools/*/main.c))))
define TOOL_RULE
$(B)/bin/$(1): $$(call obj,$$(wildcard tools/$(1)/*.c)) $(LINK_LAYERS)
	@mkdir -p $$(@D)
	@$$(if $$(V),:,echo '  LINK  $$@')
	$$(Q)$$(CC) $(SAN_FLAGS) -pthread $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call TOOL_RULE,$(t))))

# tests/unit/LAYER/test_X.c links its layer and those below it, so one broken layer does not stop the others' tests.
below = $(if $(filter $(1),$(firstword $(2))),$(2),$(call below,$(1),$(wordlist 2,99,$(2))))
TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/*/test_*.c))
define TEST_RULE
$(B)/tests/$(1)/%: tests/unit/$(1)/%.c $(foreach l,$(call below,$(1),$(REVERSED)),$(B)/lib/libqp_$(l).a)
	@mkdir -p $$(@D)
	@$$(if $$(V),:,echo '  TEST  $$@')
	$$(Q)$$(CC) $$(CFLAGS_ALL) -Itests -o $$@ $$(filter %.c %.a,$$^) $$(LIBS) -lcmocka
endef
$(foreach l,$(LAYERS),$(eval $(call TEST_RULE,$(l))))

TEST_TOOLS := $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(wildcard tests/tools/*.c))
$(B)/tests/tools/%: tests/tools/%.c $(LINK_LAYERS)
	@mkdir -p $(@D)
	@$(if $(V),:,echo '  TEST  $@')
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/bench_*.c))
$(B)/bench/%: tests/bench/%.c $(LINK_LAYERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -O2 $(if $(HAVE_BLAS),-DQP_HAVE_BLAS) $(if $(HAVE_DNNL),-DQP_HAVE_DNNL) -o $@ $(filter %.c %.a,$^) $(LIBS) $(LIBS_BLAS) $(LIBS_DNNL)

# Fuzzers: clang's libFuzzer over the whole library, compiled apart.
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
$(B)/fuzz/%: tests/fuzz/fuzz_%.c $(LINK_LAYERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -fsanitize=fuzzer -o $@ $(filter %.c %.a,$^) $(LIBS)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
