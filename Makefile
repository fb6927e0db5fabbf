# netvmd. `make` prints what there is. On a fresh Debian or Fedora machine `sudo make demo` and `sudo make test` do
# everything, installing what they need.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# sudo often hides a Go that stands outside the system's own folders.
export PATH := $(PATH):/usr/local/go/bin:/usr/lib/go/bin:$(HOME)/go/bin
export GOFLAGS := -buildvcs=false

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
PROGRAMS := netvmd netvmctl vif-route-netvm netvm-lab

# Tools, at pinned versions that do not enter go.mod.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME ?= 10s
IDLE     ?= 60s

.PHONY: help demo test build lint bench fuzz xen vuln install deps check unit

help: ## print this
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: deps build ## install what is needed, build, and watch AppVM DNS follow the uplink
	bin/netvm-lab demo

test: deps check ## install what is needed, then everything that CI checks

build: ## all programs into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

lint: ## gofmt, go vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	$(GOLANGCI_LINT) run ./...

bench: build ## latencies, losses, idle cost and memory, as medians and ratios
	bin/netvm-lab bench --idle $(IDLE)
	go test -run '^$$' -bench . -benchmem ./internal/... ./nmhook

fuzz: ## every fuzz target for FUZZTIME (10s)
	@for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; \
	done

xen: build ## the same programs on a real Xen, in QEMU (Debian only; installs QEMU)
	@internal/lab/xen/run.sh

vuln: ## known vulnerabilities in what we import (asks the Go vulnerability database)
	$(GOVULNCHECK) ./...

install: build ## into DESTDIR
	install -D -m 0755 -t $(DESTDIR)/usr/bin bin/netvmd bin/netvmctl
	install -D -m 0755 -t $(DESTDIR)/usr/lib/netvmd bin/vif-route-netvm
	mkdir -p $(DESTDIR)/etc/xen/scripts
	ln -sf /usr/lib/netvmd/vif-route-netvm $(DESTDIR)/etc/xen/scripts/vif-route-netvm
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system packaging/systemd/netvmd.service packaging/systemd/netvmd-firewall.service
	install -D -m 0644 packaging/dbus-1/org.qubes_os.NetVM1.conf $(DESTDIR)/usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf
	install -D -m 0644 packaging/dbus-1/org.qubes_os.NetVM1.service $(DESTDIR)/usr/share/dbus-1/system-services/org.qubes_os.NetVM1.service
	install -D -m 0644 dbus/org.qubes_os.NetVM1.xml $(DESTDIR)/usr/share/dbus-1/interfaces/org.qubes_os.NetVM1.xml
	install -D -m 0644 packaging/netvmd.toml $(DESTDIR)/etc/netvmd/netvmd.toml

deps: ## install the programs that the lab and the tests run (apt or dnf, as root)
	@packaging/deps.sh

check: build lint unit
	bin/netvm-lab demo
	$(MAKE) fuzz FUZZTIME=30000x
	@if command -v apt-get >/dev/null; then $(MAKE) xen; else echo 'make xen needs Debian: left out'; fi

unit:
	go test -race -timeout 15m ./...
