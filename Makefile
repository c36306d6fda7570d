# quantpipe: `make help` lists the targets. Output goes under $(B) (default build/release).
.DEFAULT_GOAL := all
B ?= build/release
include config.mk
include rules.mk
