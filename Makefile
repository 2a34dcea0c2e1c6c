# Each target is a line or two that could be typed by hand. "make" alone lists them.

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PKG         ?= ./...
BENCH       ?= .
BENCH_FLAGS ?=
CHAOS_FLAGS ?=
GATE_FLAGS  ?=
PROFILE_FLAGS ?=
RUN_FLAGS   ?=
TEST_FLAGS  ?=

# The linters' versions are part of the code: a new one is a commit of its own.
STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build all programs into bin/
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/ipc-gateway ./cmd/ipc-sandbox ./cmd/ipc-bench ./cmd/ipc-soak

.PHONY: run
run: build ## start NATS, a demo responder and a gateway in one process
	bin/ipc-sandbox $(RUN_FLAGS)

# Tests that run beside others wait more than they work: for servers that come back, for deadlines, for processes that end.
TEST := go test -parallel 8

.PHONY: test
test: ## run all tests (PKG=./codec: one package)
	$(TEST) $(TEST_FLAGS) $(PKG)

# -short leaves out the tests whose work is done by programs that they build, without the detector.
.PHONY: race
race: ## run all tests under the race detector
	$(TEST) -race -short $(PKG)

.PHONY: alloc
alloc: ## run the tests that count allocations, uncached
	go test -count=1 -run 'Alloc' $(PKG)

.PHONY: fuzz-smoke
fuzz-smoke: ## fuzz every target for 10 seconds
	.ci/fuzz-smoke 10s

.PHONY: e2e
e2e: ## check the real programs from end to end, a line for each check
	tests/e2e_integration_test.sh

# asan and msan need cgo and a C compiler that has them (gcc has no msan); what is in SANITIZED_GO goes without them. valgrind is not
# among these: it knows neither the stacks nor the heap of Go, and takes both for errors.
SANITIZED    ?= ./codec ./pool ./upstream ./client ./audit ./trace/... ./probe ./control ./internal/...
SANITIZED_GO ?= ./engine
SOAK_SECONDS ?= 60

.PHONY: sanitize
sanitize: ## race detector, asan and msan where there are, checkptr, leak checks, and a 60 s soak (SANITIZED=./pool SANITIZED_GO= SOAK_SECONDS=20: less)
	go test -race $(SANITIZED) $(SANITIZED_GO)
	go test -gcflags=all=-d=checkptr $(SANITIZED) $(SANITIZED_GO) -skip Alloc
	@if go test -asan -run '^$$' $(firstword $(SANITIZED)) >/dev/null 2>&1; then echo "go test -asan $(SANITIZED)"; go test -asan $(SANITIZED); else echo "asan: not on this machine (needs cgo and gcc 7 or clang)"; fi
	@if CC=clang go test -msan -run '^$$' $(firstword $(SANITIZED)) >/dev/null 2>&1; then echo "go test -msan $(SANITIZED)"; CC=clang go test -msan $(SANITIZED); else echo "msan: not on this machine (needs cgo and clang)"; fi
	tests/soak.sh $(SOAK_SECONDS)

.PHONY: chaos
chaos: ## break the real programs for a minute, check every promise (CHAOS_FLAGS="-chaos.time=2h -timeout 0", -chaos.race, -chaos.seed=N)
	go test -count=1 -run TestChaos ./chaos -v -chaos.time=60s $(CHAOS_FLAGS)

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint (the linters are named in .golangci.yml)
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	go vet ./...
	go run $(GOLANGCI_LINT) run

.PHONY: bench
bench: ## measure the gateway beside its peers, 7 minutes (BENCH_FLAGS=--quick: half a minute)
	go run ./cmd/ipc-bench compare $(BENCH_FLAGS)

.PHONY: goals
goals: ## measure the gateway alone for its goals, 4 minutes (BENCH_FLAGS=--quick: less than one)
	go run ./cmd/ipc-bench goals $(BENCH_FLAGS)

# The commit that bench-gate compares with: BASE=main on a branch.
BASE ?= HEAD~1

.PHONY: bench-gate
bench-gate: ## check allocations, system calls and inlining; compare with BASE for information
	go run ./cmd/ipc-bench gate --base $(BASE) $(GATE_FLAGS)

FAIRNESS_FLAGS ?= -d 0.7 --repeats 5 --limit 2

.PHONY: fairness
fairness: ## what one hostile client does to 15 good ones, half a minute (FAIRNESS_FLAGS="-d 2": the goal of 1.3x, on a quiet machine)
	perf/fairness.sh $(FAIRNESS_FLAGS)

.PHONY: perf
perf: ## the whole benchmark suite, into results/, 9 minutes (BENCH_FLAGS=--quick: less than one)
	perf/run_benchmarks.sh $(BENCH_FLAGS)

.PHONY: profile
profile: ## profile a gateway under load, into results/, 2 minutes (PROFILE_FLAGS="--seconds 5": see pprof/capture.sh)
	pprof/capture.sh $(PROFILE_FLAGS)

.PHONY: pgo
pgo: ## record the profile that go build optimizes the gateway by (then pprof/pgo.sh --measure: what it is worth)
	pprof/pgo.sh

.PHONY: microbench
microbench: ## run the packages' own benchmarks (BENCH=Decode PKG=./codec: some of them)
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

.PHONY: cover
cover: ## write results/cover.html
	mkdir -p results
	go test -coverpkg=./... -coverprofile=results/cover.out ./...
	go tool cover -html=results/cover.out -o results/cover.html
	go tool cover -func=results/cover.out | tail -1

.PHONY: check-deploy
check-deploy: ## ask a real Prometheus every query of the dashboard, check the rules and all else in deploy/
	go test -count=1 -v ./deploy -deploy.live

# podman and buildah write HEALTHCHECK only into images of docker's format: IMAGE_TOOL="podman build --format docker".
IMAGE_TOOL ?= docker build

.PHONY: docker
docker: ## build the image ipc-gateway:$(VERSION) (IMAGE_TOOL="podman build --format docker": without docker)
	$(IMAGE_TOOL) --build-arg VERSION=$(VERSION) -t ipc-gateway:$(VERSION) .

.PHONY: check-image
check-image: ## build the image with buildah and no registry, run it with podman, ask it (as root)
	deploy/container/try

.PHONY: dist
dist: ## build the Debian package and the archive into dist/ (ARCH=arm64: for another machine)
	VERSION=$(VERSION) deploy/dist

.PHONY: check-package
check-package: ## install the Debian package in a throw-away copy of this machine, run it, upgrade and purge it (as root, on Debian)
	deploy/debian/try

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf bin results dist
