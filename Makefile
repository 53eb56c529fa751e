# SPDX-License-Identifier: GPL-2.0
#
# The commands of the project. `make help` lists them.

VARIANT ?= rust
CONFIG ?= debian-cloud
T ?= 0008
CPUS ?= 4
MEM ?= 4G
KERNELS = $(patsubst scripts/build/linux-source-%.pin,%,$(wildcard scripts/build/linux-source-*.pin))
export VARIANT CPUS MEM CALLS KERNEL KSRC ACCEL ARCH PAGES FULL QUICK FROM TO

.DEFAULT_GOAL := run
.PHONY: run check kernel deb boot vm tree refresh series series-check rebase docs selftest kunit \
	model litmus history peek fuzz soak debug-suite differential modes third-party herd style \
	bench cost scale coldplug setup doctor clean help

##@ Start here

run: ## build and boot the kernel, run kmod.sh 0008, print the statistics
	@scripts/test/run

check: ## run all checks of CI; FULL=1 adds the slow ones
	@scripts/ci/check

help: ## show this list
	@sed -nE -e 's/^##@ (.*)/\n\1:/p' -e 's/^([a-z-]+): ## /  \1\t/p' Makefile | expand -t 16 | tail -n +2
	@echo
	@echo 'Variables:'
	@echo '  VARIANT=rust  kernel to build or boot (default rust):'
	@echo '                  rust   the patched source, deduplication in Rust'
	@echo '                  c      the pristine source, the reference'
	@echo '                  off    the patched source, option disabled'
	@echo '                  debug  rust with KASAN, lockdep, kmemleak, fault injection'
	@echo '                  lean   rust without MODULE_DEBUG_AUTOLOAD_DUPS, SCHEDSTATS'
	@echo '  CONFIG=debian-cloud  configuration of make deb and make boot: debian, debian-cloud,'
	@echo '                  debian-rt (those of Debian 13 backports), or the path of one;'
	@echo '                  VARIANT=off: without the series'"'"'s option, to compare with'
	@echo '  ARCH=x86_64   architecture (default: that of the machine): x86_64, arm64, arm, riscv64;'
	@echo '                  loongarch is only built. PAGES=64K: large pages on arm64'
	@echo '  CPUS=4 MEM=4G size of the guest'
	@echo '  ACCEL=auto    QEMU accelerator: kvm, tcg, or auto to try KVM once'
	@echo '  KERNEL=7.3    version of Linux (default 7.3, or that of KSRC): $(KERNELS)'
	@echo '  KSRC=dir      use this tree of that version instead of the Debian package'
	@echo '  ARGS=...      more arguments for the script that a target runs'

##@ Build

kernel: ## build one variant: build/VARIANT/arch/x86/boot/bzImage on x86_64
	@scripts/build/kernel '$(VARIANT)'

deb: ## build Debian packages of CONFIG=debian-cloud with the series: build/deb/
	@scripts/build/deb '$(CONFIG)' '$(VARIANT)'

boot: ## install that package on a disk with Debian 13 and open its console
	@scripts/bench/coldplug --disk '$(CONFIG)' --variant '$(VARIANT)' --cpus '$(CPUS)' \
		--mem '$(MEM)' --console $(ARGS)

tree: ## lay out the source tree of a variant: build/linux, build/pristine
	@scripts/build/tree '$(VARIANT)'

refresh: ## update patches/ from build/linux
	@scripts/build/refresh

series: ## write the two series of patches to build/series/; ARGS=--help
	@scripts/build/series $(ARGS)

rebase: ## try the series on the tree KSRC=dir, of any version, and list the conflicts
	@scripts/build/rebase

docs: ## build Documentation/ as HTML: build/docs/
	@scripts/build/docs

##@ Test in the guest

vm: ## open a shell in the guest; scripts/vm runs a single command
	@scripts/vm --variant '$(VARIANT)' --cpus '$(CPUS)' --mem '$(MEM)' $(ARGS)

selftest: ## run one test: T=0001 to 0013 of the kernel's kmod.sh, or T=dup_finit
	@scripts/test/selftest '$(VARIANT)' '$(T)' $(ARGS)

kunit: ## run the KUnit tests and doctests
	@scripts/test/kunit '$(VARIANT)'

modes: ## test each value of module.dedup=
	@scripts/test/modes

differential: ## compare the results of one workload with c; VARIANT=rust or off
	@scripts/test/differential '$(VARIANT)'

debug-suite: ## run our tests under KASAN, lockdep, kmemleak; ARGS=whole: slow ones
	@scripts/test/debug-suite $(ARGS)

third-party: ## run stress-ng --module and the kernel's find_symbol.sh
	@scripts/test/third-party '$(VARIANT)'

herd: ## test tools/module-herd, on the host and during a herd on rust and c
	@scripts/test/herd

soak: ## load and unload in every way at once, for MINUTES=5
	@scripts/test/soak '$(MINUTES)'

history: ## check CALLS=200000 random calls for linearizability; ARGS=SEED
	@scripts/test/history '$(VARIANT)' $(ARGS)

##@ Test on the host

model: ## model-check kernel/module/dedup/ with loom; FULL=1 takes longer
	@scripts/test/model

litmus: ## check memory ordering with herd7 and the kernel's memory model
	@scripts/test/litmus

peek: ## compare peek.rs with an ELF crate, on all modules built
	@scripts/test/peek

fuzz: ## fuzz peek.rs for SECONDS=60
	@scripts/test/fuzz '$(SECONDS)'

series-check: ## build, boot and test each patch; FROM=NAME TO=NAME, ARGS=quick
	@scripts/test/series-check $(ARGS)

style: ## run shellcheck, rustfmt, clippy, checkpatch and our own rules
	@for check in shellcheck rustfmt source clippy checkpatch; do \
		echo "$$check"; scripts/ci/check-style "$$check" || exit; done

##@ Measure

bench: ## run all benchmarks, for hours; QUICK=1: 10 minutes; ARGS=--help
	@scripts/bench/bench $(ARGS)

cost: ## count the instructions of a load, against c
	@scripts/bench/cost

scale: ## run the code on 1 to 64 threads of the host, predict 1,024 CPUs
	@scripts/bench/scale $(ARGS)

coldplug: ## boot Debian with udev, print times and waste; ARGS=--help
	@scripts/bench/coldplug --variant '$(VARIANT)' --cpus '$(CPUS)' --mem '$(MEM)' $(ARGS)

##@ Housekeeping

setup: ## install missing tools
	@scripts/build/setup

doctor: ## list the tools required and found
	@scripts/build/doctor

clean: ## remove build/, but not the cache
	rm -rf build
