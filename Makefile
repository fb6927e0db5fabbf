# netvmd. `make` prints what there is. On a fresh Debian or Fedora machine `sudo make demo` and `sudo make test` do
# everything, installing what they need.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# sudo often hides a Go that stands outside the system's own folders.
export PATH := $(PATH):/usr/local/go/bin:/usr/lib/go/bin:$(HOME)/go/bin
export GOFLAGS := -buildvcs=false
# systray calls what newer libayatana-appindicator wants to be rid of, and the compiler would fill a page with it.
export CGO_CFLAGS := -g -O2 -Wno-deprecated-declarations

# The tag, and how many commits after it; before the first tag, that which is coming, with the commit's time.
describe  = git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/'
untagged  = TZ=UTC0 git log -1 --date=format-local:%Y%m%d%H%M%S --format=0.9.0-git%cd.g%h 2>/dev/null || echo 0.9.0
VERSION  ?= $(or $(shell $(describe)),$(shell $(untagged)))
# What is built twice is the same: all times in the packages are the commit's.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y go.mod)
LDFLAGS  := -s -w -X main.version=$(VERSION)
PROGRAMS := netvmd netvmctl vif-route-netvm qvm-dom0-network-via-netvm netvm-lab
# The one program in cgo, and the libraries of which it needs the headers.
TRAY      := netvm-tray
TRAY_LIBS := gtk+-3.0 ayatana-appindicator3-0.1
# Where everything is built.
BIN      ?= bin
# Where the packages come, and who answers for them.
DIST       ?= dist
PACKAGES   := netvmd-vm netvmd netvmd-tray netvmd-dom0
MAINTAINER ?= netvmd developers <netvmd@project.invalid>
PAGES    := $(notdir $(basename $(wildcard packaging/man/*.md)))
# The tray's pictures. Below 32 pixels no drawing is sharp at every size: 16 and 22 have drawings of their own.
ICONS      := $(notdir $(basename $(wildcard packaging/icons/*.svg)))
ICON_SIZES := 16 22 24 32 48 64
PNG        := tray/icons/png
APP_ICON   := netvm-tray
STATUS     := $(filter-out $(APP_ICON),$(ICONS))
HICOLOR     = $(DESTDIR)/usr/share/icons/hicolor

# Tools, at pinned versions that do not enter go.mod.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
MD2MAN        := go run github.com/cpuguy83/go-md2man/v2@v2.0.7

FUZZTIME ?= 10s
IDLE     ?= 60s

.PHONY: help demo test build man completions lint bench fuzz xen test-packages vuln install install-netvmd install-netvmd-vm install-netvmd-tray install-netvmd-dom0 packages deps deps-demo story check unit headers icons tray-pictures
.DELETE_ON_ERROR:

help: ## print this
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: deps-demo story ## install what is needed, build, and watch AppVM DNS follow the uplink

story: build
	$(BIN)/netvm-lab demo

test: deps check ## install what is needed, then everything that CI checks

build: headers icons ## all programs into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))
	CGO_ENABLED=1 go build -trimpath -buildmode=pie -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/$(TRAY)

# One line instead of a page of the compiler's.
headers:
	@pkg-config --exists $(TRAY_LIBS) 2>/dev/null || \
	  { echo 'netvm-tray needs pkg-config and the headers of $(TRAY_LIBS): `make deps`, as root, installs them' >&2; exit 1; }

icons: $(foreach size,$(ICON_SIZES),$(ICONS:%=$(PNG)/$(size)/%.png)) ## the tray's pictures, from packaging/icons

# $(call picture,SIZE,DRAWINGS,FILTER) renders the drawings of a folder, each passed through a filter.
define picture
$(PNG)/$(1)/%.png: $(2)/%.svg
	@mkdir -p $$(@D)
	@$(3) $$< | rsvg-convert -w $(1) -h $(1) -o $$@
endef
$(eval $(call picture,16,packaging/icons/16,cat))
$(eval $(call picture,22,packaging/icons/22,cat))
# At 24 pixels these have one pixel more around them, as scaled up they would be blurred.
$(eval $(call picture,24,packaging/icons/22,sed 's/viewBox="0 0 22 22"/viewBox="-1 -1 24 24"/'))
$(foreach size,32 48 64,$(eval $(call picture,$(size),packaging/icons,cat)))

tray-pictures: build ## the tray in every state, in real panels, into tray/pictures.png (as root)
	$(BIN)/netvm-lab pictures

man: build ## the manual pages into bin/man
	go run ./packaging/man -bin $(BIN) -out $(BIN)/man/markdown -version $(VERSION)
	@for page in $(PAGES); do \
	  $(MD2MAN) -in $(BIN)/man/markdown/$$page.md -out $(BIN)/man/$$page && \
	  sed -i -f packaging/man/copyable.sed $(BIN)/man/$$page || exit 1; \
	done

completions: build
	@mkdir -p $(BIN)/completions
	$(BIN)/netvmctl completion bash >$(BIN)/completions/netvmctl
	$(BIN)/netvmctl completion zsh >$(BIN)/completions/_netvmctl
	$(BIN)/netvmctl completion fish >$(BIN)/completions/netvmctl.fish

lint: headers icons ## gofmt, go mod tidy, go vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	@go mod tidy -diff || { echo 'run go mod tidy'; exit 1; }
	go vet ./...
	go vet -tags manual ./cmd/netvmctl
	go vet -tags packages ./packaging/packages
	$(GOLANGCI_LINT) run ./...

bench: build ## latencies, losses, idle cost and memory, as medians and ratios
	$(BIN)/netvm-lab bench --idle $(IDLE)
	go test -run '^$$' -bench . -benchmem ./internal/... ./nmhook ./dbus ./tray/...

fuzz: ## every fuzz target for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME)

xen: build ## the same programs on a real Xen, in QEMU (Debian only; installs QEMU)
	@internal/lab/xen/run.sh

test-packages: ## the packages of all formats, looked at, installed, upgraded and removed under systemd (Debian, as root)
	@packaging/packages/run.sh

vuln: ## known vulnerabilities in what we import (asks the Go vulnerability database)
	$(GOVULNCHECK) ./...

install: $(PACKAGES:%=install-%) ## into DESTDIR

# What is in the package netvmd: the netvm's.
install-netvmd: man
	install -D -m 0755 -t $(DESTDIR)/usr/bin $(BIN)/netvmd
	install -D -m 0755 -t $(DESTDIR)/usr/lib/netvmd $(BIN)/vif-route-netvm
	mkdir -p $(DESTDIR)/etc/xen/scripts
	ln -sf /usr/lib/netvmd/vif-route-netvm $(DESTDIR)/etc/xen/scripts/vif-route-netvm
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system $(wildcard packaging/systemd/netvmd*.service)
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system/NetworkManager-dispatcher.service.d packaging/systemd/NetworkManager-dispatcher.service.d/30-netvmd.conf
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system/qubes-network.service.d packaging/systemd/qubes-network.service.d/30-netvmd.conf
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system-preset packaging/systemd/75-netvmd.preset
	install -D -m 0644 packaging/systemd/tmpfiles.conf $(DESTDIR)/usr/lib/tmpfiles.d/netvmd.conf
	install -D -m 0644 -t $(DESTDIR)/usr/lib/netvmd packaging/systemd/sysctl.conf
	install -D -m 0644 -t $(DESTDIR)/usr/lib/udev/rules.d packaging/udev/70-netvm-vifs.rules
	install -D -m 0755 -t $(DESTDIR)/etc/qubes/post-install.d packaging/qubes/30-netvmd.sh
	install -D -m 0644 packaging/dbus-1/org.qubes_os.NetVM1.conf $(DESTDIR)/usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf
	install -D -m 0644 packaging/dbus-1/org.qubes_os.NetVM1.service $(DESTDIR)/usr/share/dbus-1/system-services/org.qubes_os.NetVM1.service
	install -D -m 0644 dbus/org.qubes_os.NetVM1.xml $(DESTDIR)/usr/share/dbus-1/interfaces/org.qubes_os.NetVM1.xml
	install -D -m 0644 -t $(DESTDIR)/usr/lib/NetworkManager/conf.d packaging/NetworkManager/30-netvm-vifs.conf
	install -D -m 0644 -t $(DESTDIR)/usr/share/polkit-1/actions packaging/polkit/org.qubes_os.NetVM1.policy
	install -D -m 0644 packaging/netvmd.toml $(DESTDIR)/etc/netvmd/netvmd.toml
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man5 $(BIN)/man/netvmd.toml.5 $(BIN)/man/org.qubes_os.NetVM1.5
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man8 $(BIN)/man/netvmd.8 $(BIN)/man/vif-route-netvm.8
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/netvmd/examples packaging/examples/wg0.conf
	install -D -m 0755 -t $(DESTDIR)/usr/share/doc/netvmd/examples packaging/examples/openvpn-dns

# What is in the package netvmd-vm: for every domain that a netvm serves, and netvmctl for all.
install-netvmd-vm: man completions
	install -D -m 0755 -t $(DESTDIR)/usr/bin $(BIN)/netvmctl
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system packaging/systemd/netvm-uplink@.service
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system/qubes-network-uplink@.service.d packaging/systemd/qubes-network-uplink@.service.d/30-netvmd.conf
	install -D -m 0644 -t $(DESTDIR)/usr/lib/udev/rules.d packaging/udev/90-netvm-uplink.rules
	install -D -m 0755 -t $(DESTDIR)/etc/qubes/post-install.d packaging/qubes/30-netvmd-vm.sh
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man1 $(BIN)/man/netvmctl.1
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man8 $(BIN)/man/netvm-uplink.8
	install -D -m 0644 -t $(DESTDIR)/usr/share/bash-completion/completions $(BIN)/completions/netvmctl
	install -D -m 0644 -t $(DESTDIR)/usr/share/zsh/site-functions $(BIN)/completions/_netvmctl
	install -D -m 0644 -t $(DESTDIR)/usr/share/fish/vendor_completions.d $(BIN)/completions/netvmctl.fish

# What is in the package netvmd-tray.
install-netvmd-tray: man icons
	install -D -m 0755 -t $(DESTDIR)/usr/bin $(BIN)/netvm-tray
	install -D -m 0644 -t $(DESTDIR)/etc/xdg/autostart packaging/xdg/netvm-tray.desktop packaging/xdg/netvm-tray-plain.desktop
	install -D -m 0644 packaging/xdg/netvm-tray-plain.desktop $(DESTDIR)/usr/share/applications/netvm-tray.desktop
	sed -i '/^#/d; /^NotShowIn=/d' $(DESTDIR)/usr/share/applications/netvm-tray.desktop
	@for size in $(ICON_SIZES); do \
	  install -D -m 0644 -t $(HICOLOR)/$${size}x$$size/status $(STATUS:%=$(PNG)/$$size/%.png) && \
	  install -D -m 0644 -t $(HICOLOR)/$${size}x$$size/apps $(PNG)/$$size/$(APP_ICON).png || exit 1; \
	done
	install -D -m 0644 -t $(HICOLOR)/scalable/status $(STATUS:%=packaging/icons/%.svg)
	install -D -m 0644 -t $(HICOLOR)/scalable/apps packaging/icons/$(APP_ICON).svg
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man1 $(BIN)/man/netvm-tray.1

# What is in the package netvmd-dom0.
install-netvmd-dom0: man
	install -D -m 0755 -t $(DESTDIR)/usr/bin $(BIN)/qvm-dom0-network-via-netvm
	install -D -m 0644 -t $(DESTDIR)/usr/share/man/man8 $(BIN)/man/qvm-dom0-network-via-netvm.8
	install -D -m 0644 -t $(DESTDIR)/usr/share/bash-completion/completions packaging/completions/qvm-dom0-network-via-netvm
	install -D -m 0644 -t $(DESTDIR)/usr/share/zsh/site-functions packaging/completions/_qvm-dom0-network-via-netvm
	install -D -m 0644 -t $(DESTDIR)/usr/share/fish/vendor_completions.d packaging/completions/qvm-dom0-network-via-netvm.fish

packages: man completions icons ## deb, rpm and Arch packages into dist/
	rm -rf $(BIN)/root
	@for package in $(PACKAGES); do \
	  $(MAKE) --no-print-directory $(addprefix --assume-old=,$^) install-$$package DESTDIR=$(BIN)/root/$$package || exit 1; \
	done
	packaging/nfpm/build.sh $(BIN)/root $(DIST) '$(VERSION)' '$(MAINTAINER)'

deps: ## install what the build, the lab and the tests need (apt or dnf, as root)
	@packaging/deps.sh

deps-demo:
	@packaging/deps.sh demo

# What may share the processors, the longest first. What needs Debian is left out elsewhere.
STAGES := $(if $(shell command -v apt-get),xen test-packages) fuzz story

check: build lint unit
	@$(if $(filter xen,$(STAGES)),,echo 'make test-packages and make xen need Debian: left out')
	@MAKE='$(MAKE)' FUZZTIME=10000x .ci/together $(STAGES)

# The tests run programs, the kernel and make, of whose changes Go's cache of results knows nothing: hence -count=1. They
# wait for these more than they compute: hence one package more at a time than there are processors. Every test with the
# race detector would wait a second at its end for more races.
unit: headers icons
	GORACE=atexit_sleep_ms=20 go test -race -count=1 -timeout 15m -p $$(($$(nproc) + 1)) ./...
