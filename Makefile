# SPDX-License-Identifier: BSD-3-Clause
# The commands people type. CMake builds: see CMakePresets.json for the other ways to.

.PHONY: all demo check check-fast fuzz bench format install clean help
.NOTPARALLEL:

# The variables below may be given on the command line.
TARGET = all
FUZZ_SECONDS = 600
PREFIX = /usr/local
STEPS =

all:
	@tool/deps build
	@tool/build release

demo: all
	@tool/deps demo
	@VMSG_BUILD="$(CURDIR)/build/release" tool/demo

check:
	@tool/check $(STEPS)

check-fast:
	@tool/deps build
	@tool/build debug
	@tool/run-tests build/debug

fuzz:
	@tool/fuzz $(TARGET) $(FUZZ_SECONDS)

bench:
	@tool/bench

format:
	@tool/deps format
	@find core bus device driver backend port cmd include test example \
		-name '*.[ch]' -exec clang-format -i {} +

# Builds nothing, so that "sudo make install" leaves no file of root's in the tree.
install:
	@test -f build/release/vmsgd || { echo 'run make first'; exit 1; }
	@cmake --install build/release --prefix "$(PREFIX)" --strip

clean:
	@rm -rf build

help:
	@echo 'make              build vmsgd and vmsg in build/release'
	@echo 'make demo         show a disk, entropy and a console working over messages'
	@echo 'make check        run every test and check; STEPS="unit pair" runs some of them'
	@echo '                  (tool/check -l lists the steps)'
	@echo 'make check-fast   build for debugging, run the unit and pair tests'
	@echo 'make fuzz         fuzz for long; TARGET=name FUZZ_SECONDS=600'
	@echo 'make bench        measure'
	@echo 'make format       format the C files (clang-format)'
	@echo 'make install      install what make built; PREFIX=/usr/local DESTDIR='
	@echo 'make clean        remove build/'
