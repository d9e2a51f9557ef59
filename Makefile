# SPDX-License-Identifier: GPL-2.0
#
# make help. The work is done by scripts/; kbuild reads Kbuild, not this file.

include kernel.mk

BUILD ?= $(CURDIR)/build
# kbuild and the scripts have other working directories.
override BUILD := $(abspath $(BUILD))
export KVER BUILD
# Where "make install" puts things; its scripts see them.
export DESTDIR PREFIX LIBDIR
# An installation prefix for modules_install.
INSTALL_MOD_PATH ?=
# One clock for all scripts of a run.
export NLB_START := $(shell date +%s)
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test modules modules_install tools install cargo-test fuzz install-test kunit debugtests kasan selftests machines check bench-forward bench-migration bench-health fmt vm clean clean-cache

help:
	@cat scripts/help.txt

demo: modules tools
	@scripts/demo

test:
	@NLB_TEST=$(if $(ALL),all,$(NLB_TEST)) scripts/test

ifdef KDIR
# A kernel tree that has its Rust metadata, with this machine's compilers, like any module elsewhere.
modules:
	@scripts/kdir-check "$(KDIR)"
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(BUILD)/modules modules

modules_install:
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(BUILD)/modules INSTALL_MOD_PATH=$(INSTALL_MOD_PATH) modules_install
else
modules:
	@scripts/build-modules

modules_install: modules
	@scripts/install-modules "$(INSTALL_MOD_PATH)"
endif

tools:
	@scripts/build-tools

install:
	@scripts/install-tools

cargo-test:
	@scripts/test cargo

fuzz:
	@scripts/test fuzz $(RUNS)

install-test:
	@scripts/test install

kunit:
	@scripts/test kunit

debugtests:
	@scripts/test debug $(T)

kasan:
	@scripts/test kasan

selftests:
	@scripts/test selftests $(T)

machines:
	@scripts/test machines

check:
	@scripts/test check

bench-forward:
	@scripts/bench-forward

bench-migration:
	@scripts/bench-migration

bench-health:
	@scripts/build-tools bench-health

fmt:
	@scripts/fmt

vm: modules tools
	@scripts/vm --shell

clean:
	rm -rf $(BUILD)

clean-cache:
	@scripts/clean-cache
