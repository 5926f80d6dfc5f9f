# SPDX-License-Identifier: GPL-2.0
#
# The front door. The modules are described in Kbuild, what a target does is in scripts/.

.PHONY: all
all: modules

.PHONY: help
help:
	@echo 'Tenon: Linux kernel modules in Rust for virtual machines'
	@echo ''
	@echo '  make modules          build the modules into build/RELEASE/ (also: make)'
	@echo '  make demo             show them at work in a virtual machine with a stock Debian kernel'
	@echo '  make shell            the same virtual machine to try things in; leave it with exit'
	@echo '  make test             run all tests on the stock kernel'
	@echo '  make test-sanitize    run the guest tests on a kernel with KASAN, lockdep and others'
	@echo '  make test-install     build and install the modules in a Debian guest, as its user would'
	@echo '  make selftests        run the kernel'"'"'s own tests of network drivers there, with both drivers'
	@echo '  make bench            measure the drivers beside the kernel'"'"'s own; tables and pictures in build/bench/'
	@echo ''
	@echo '  make install          install the modules into the running kernel (as root)'
	@echo '  make uninstall        undo that'
	@echo '  make load             load them now, without installing (as root)'
	@echo ''
	@echo '  make rustfmt          format the Rust code'
	@echo '  make rustfmt-check    check its format'
	@echo '  make clippy           check it with clippy'
	@echo '  make rustdoc          document the crates into build/RELEASE/doc/'
	@echo '  make rust-analyzer    write rust-project.json for editors'
	@echo '  make shellcheck       check the scripts'
	@echo ''
	@echo '  make -s vars          print where kernel, modules and tools are'
	@echo '  make update           fetch a newer kernel if the mirror has one'
	@echo '  make prune            remove from the cache what is not in use any more'
	@echo '  make clean            remove build/'
	@echo ''
	@echo 'Each target makes what it needs, once, below $${XDG_CACHE_HOME:-~/.cache}/tenon.'
	@echo 'modules, install and load are for the running kernel where its headers, source and'
	@echo 'compilers are installed; otherwise, and for all other targets, the kernel is Debian'"'"'s:'
	@echo ''
	@echo '  FLAVOUR=amd64         another flavour than cloud-amd64'
	@echo '  KERNEL=sanitizer      the kernel of test-sanitize'
	@echo '  KDIR=DIR              the kernel that was built in DIR, with its Rust metadata'
	@echo '  MINUTES=N             start no test later than that (test, test-sanitize)'
	@echo '  BENCH=NAME, RUNS=N    only benchmarks with such a name, each N times (bench)'
	@echo '  SELFTEST=NAME         only tests with such a name (selftests)'
	@echo '  CASE=PATTERN          of them only cases with such a name (selftests)'
	@echo '  V=1, JOBS=N           show the commands of kbuild; run N at a time'
	@echo '  DEBIAN_MIRROR=URL     another mirror than the one this machine'"'"'s apt uses'
	@echo '  DESTDIR=DIR           install below DIR'

.PHONY: modules
modules:
	@scripts/build-modules --running

.PHONY: demo shell
demo shell:
	@scripts/harness $@

# From the start of the command on: what it builds first takes its share.
time = $(if $(MINUTES),--minutes '$(MINUTES)' --since $$(date +%s))

.PHONY: test
test:
	@scripts/harness test $(time)

.PHONY: test-sanitize
test-sanitize:
	@scripts/harness --sanitizer test $(time)

.PHONY: test-install
test-install:
	@scripts/harness --debian test-install

.PHONY: selftests
selftests:
	@scripts/harness --selftests selftests $(SELFTEST) $(foreach case,$(CASE),--case '$(case)')

.PHONY: bench
bench:
	@scripts/harness bench $(BENCH) $(if $(RUNS),--runs '$(RUNS)')

.PHONY: install uninstall load
install uninstall load:
	@scripts/$@

.PHONY: rustfmt rustfmt-check
rustfmt:
	@scripts/rustfmt
rustfmt-check:
	@scripts/rustfmt --check

.PHONY: clippy
clippy:
	@scripts/build-modules --clippy

.PHONY: rustdoc rust-analyzer
rustdoc rust-analyzer:
	@scripts/$@

.PHONY: shellcheck
shellcheck:
	@scripts/shellcheck

.PHONY: vars
vars:
	@scripts/vars

.PHONY: update prune
update:
	@scripts/kernel --update
prune:
	@scripts/buildroot --prune
	@scripts/kernel --prune
	@scripts/sanitizer-kernel --prune
	@scripts/debian-guest --prune
	@scripts/selftests --prune

.PHONY: clean
clean:
	rm -rf build rust-project.json
