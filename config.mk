# Detection: scripts/detect.sh probes each library by compiling and linking a tiny program; `make config` prints the findings again.
# Override on the command line or in config.local.mk: CC=clang, BLAS=0, DNNL=0, CFLAGS=...
-include config.local.mk
ifeq ($(origin CC),default)
CC := cc
endif
CFLAGS ?= -O2 -g
SANITIZE ?=
BLAS ?=
DNNL ?=
PREFIX ?= /usr/local
DESTDIR ?=

DETECTED := $(B)/detected-$(notdir $(firstword $(CC)))$(BLAS)$(DNNL).mk
NO_BUILD_GOALS := setup help clean fetch-model demo check bench install fuzz format config
ifneq ($(filter-out $(NO_BUILD_GOALS),$(or $(MAKECMDGOALS),all)),)
$(DETECTED): scripts/detect.sh
	@BLAS='$(BLAS)' DNNL='$(DNNL)' scripts/detect.sh $@ '$(CC)'
include $(DETECTED)
ifneq ($(strip $(MISSING)),)
$(shell rm -f $(DETECTED))
$(error missing: $(MISSING) (packages: $(MISSING_PACKAGES)). `make setup` installs them on Debian and Ubuntu)
endif
endif
