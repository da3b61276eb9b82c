# Go and make are enough for build, demo and test. The other targets fetch
# what they need, at the versions pinned in tools/.

VERSION := $(or $(VERSION),$(shell git describe --tags --match 'v*' --always --dirty 2>/dev/null),unknown)

# How long each fuzz target runs.
FUZZTIME ?= 60s
# More for `go test`; the race detector is the one thing here that wants a C
# compiler: make test CGO_ENABLED=1 TESTFLAGS=-race
TESTFLAGS ?=
# Arguments for the demonstration.
DEMOFLAGS ?=
# Arguments for the benchmarks, such as -write docs/benchmarks.md.
BENCHFLAGS ?=
# The commit that the API must not break; the newest state of main by default.
AGAINST ?=

export CGO_ENABLED := 0

COMMANDS   := ./cmd/probe-agent ./cmd/probe-controller ./cmd/probectl
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)'

TOOLS := bin/tools
BUF   := tools/node_modules/.bin/buf

SCRIPTS := .ci/run $(wildcard tools/*.sh)

.PHONY: all
all: build

.PHONY: build
build: ## build the three programs into bin/
	go build $(BUILDFLAGS) -o bin/ $(COMMANDS)

.PHONY: demo
demo: build ## build everything and watch it measure a small network of its own
	go build $(BUILDFLAGS) -o bin/ ./internal/lab/demo
	bin/demo $(DEMOFLAGS)

.PHONY: bench
bench: build ## measure accuracy, rate and cost, beside those peers that are installed (BENCHFLAGS=-quick)
	go build $(BUILDFLAGS) -o bin/ ./internal/lab/bench
	bin/bench $(BENCHFLAGS)

# Never from the cache: what these tests ask, they ask of the kernel.
.PHONY: test
test: ## run all tests, as root or not
	go test -count=1 $(TESTFLAGS) ./...

NODE := docs/clients/node

.PHONY: clients
clients: build $(NODE)/node_modules/.package-lock.json ## watch with a foreign client while the controller is killed
	cd $(NODE) && npm test --silent
	tools/clients.sh

.PHONY: torture
torture: ## the long proofs: 1,000 kills, 10 million forged answers, a parted fleet, 1,000 agents
	SYNMESH_TORTURE=1 nice go test -count=1 -v -timeout 30m -run 'Torture|TenMillion' ./internal/gossip ./probe/engine
	SYNMESH_KILLS=1000 nice go test -count=1 -v -timeout 2h ./internal/oracle
	SYNMESH_TORTURE=1 nice go test -count=1 -v -timeout 1h -run 'Kill|Flip|ACutFile|ADisk' ./controller/history -rapid.checks=2000
	SYNMESH_TORTURE=1 go test -count=1 -v -timeout 30m -run Swarm ./internal/lab/swarm
	SYNMESH_TORTURE=1 go test -count=1 -v -timeout 30m -run Silent ./internal/lab/outage
	SYNMESH_TORTURE=1 go test -count=1 -v -timeout 30m -run Torture ./controller/api/results

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (60s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: $(BUF) $(TOOLS)/built ## write the Go code of the .proto files
	find proto controller/web -name '*.pb*.go' -delete
	$(BUF) generate

.PHONY: generate-check
generate-check: $(BUF) $(TOOLS)/built ## see that the generated code is current
	tools/generate-check.sh $(BUF)

.PHONY: lint
lint: $(BUF) $(TOOLS)/built ## check Go, .proto files and scripts
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then \
		echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(TOOLS)/staticcheck ./...
	$(BUF) lint
	$(BUF) format --diff --exit-code proto
	@if command -v shellcheck >/dev/null; then \
		shellcheck $(SCRIPTS) && echo "shellcheck $(SCRIPTS)"; \
	else echo "shellcheck is not installed: the scripts were not checked"; fi

.PHONY: breaking
breaking: $(BUF) ## see that the API still serves those who use main's (AGAINST=commit)
	tools/breaking.sh $(BUF) $(AGAINST)

.PHONY: cross
cross: ## build for the other platforms into dist/
	GOOS=linux GOARCH=arm64 go build $(BUILDFLAGS) -o dist/linux-arm64/ $(COMMANDS)
	GOOS=darwin GOARCH=arm64 go build $(BUILDFLAGS) -o dist/darwin-arm64/ ./cmd/probectl
	GOOS=darwin GOARCH=amd64 go build $(BUILDFLAGS) -o dist/darwin-amd64/ ./cmd/probectl
	GOOS=windows GOARCH=amd64 go build $(BUILDFLAGS) -o dist/windows-amd64/ ./cmd/probectl

.PHONY: clean
clean: ## remove what was built and fetched here
	rm -rf bin dist tools/node_modules $(NODE)/node_modules

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(TOOLS)/built: tools/go.mod tools/go.sum
	go -C tools build -trimpath -buildvcs=false -o ../$(TOOLS)/ tool
	@touch $@

$(NODE)/node_modules/.package-lock.json: $(addprefix $(NODE)/,package.json package-lock.json .npmrc)
	cd $(NODE) && npm ci --loglevel=error
	@touch $@

$(BUF): tools/package.json tools/package-lock.json tools/.npmrc
	cd tools && npm ci --loglevel=error
	@touch $@
