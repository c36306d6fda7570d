# Detection of compilers and optional libraries: each is probed by compiling and linking a tiny program, printed by `make config`, and overridden
# on the command line (BLAS=0, DNNL=0, CC=clang).
CC ?= cc
CFLAGS ?= -O2 -g
SANITIZE ?=
