# SPDX-License-Identifier: GPL-2.0
#
# The commands of the project. `make help` lists them.

VARIANT ?= rust
T ?= 0008
CPUS ?= 4
MEM ?= 4G
export VARIANT CPUS MEM KSRC ACCEL FULL QUICK

.DEFAULT_GOAL := run
.PHONY: run check bench kernel vm selftest kunit model peek fuzz tree refresh series setup docs doctor soak clean help

run: ## everything, from nothing: build, boot, kmod.sh 0008, the statistics
	@scripts/run

check: ## everything that CI checks; FULL=1: and what takes long, see README
	@scripts/check

bench: ## the measurements, for hours; QUICK=1: in ten minutes; build/report/index.html
	@scripts/bench

kernel: ## build one variant to build/VARIANT/arch/x86/boot/bzImage
	@scripts/kernel '$(VARIANT)'

vm: ## a shell in the guest (scripts/vm runs a command there)
	@scripts/vm --variant '$(VARIANT)' --cpus '$(CPUS)' --mem '$(MEM)'

selftest: ## one test: T=0001 ... 0013 of the kernel's kmod.sh, or T=finit_dedup
	@scripts/selftest '$(VARIANT)' '$(T)'

kunit: ## the KUnit tests and doctests, in the guest
	@scripts/kunit '$(VARIANT)'

model: ## kernel/module/dedup/ under the model checker loom, on the host; FULL=1: longer
	@scripts/model

peek: ## peek.rs against an ELF crate, on the modules of the build, on the host
	@scripts/peek

fuzz: ## peek.rs under libFuzzer, for SECONDS=60, on the host
	@scripts/fuzz '$(SECONDS)'

soak: ## loads in all ways at once, in a small guest, for MINUTES=5
	@scripts/soak '$(MINUTES)'

docs: ## the pages of Documentation/ as HTML, in build/docs/
	@scripts/docs

tree: ## lay out the source tree of a variant
	@scripts/tree '$(VARIANT)'

refresh: ## write the patches anew from build/linux
	@scripts/refresh

series: ## the work as a patch series against the pristine tree, in build/series/
	@scripts/series

setup: ## install what is missing
	@scripts/setup

doctor: ## list the tools: needed, found, where
	@scripts/doctor

clean: ## remove build/; the cache stays
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\): ## /\1\t/p' Makefile | expand -t 12
	@echo
	@echo 'VARIANT=rust (default), c (pristine source), off (patched, switched off), debug,'
	@echo '    lean (rust without MODULE_DEBUG_AUTOLOAD_DUPS and SCHEDSTATS)'
	@echo 'KSRC=dir: use that Linux 7.3.y tree; ACCEL=auto|kvm|tcg: of QEMU'
	@echo 'CPUS=4 MEM=4G: of the guest'
