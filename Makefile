# HOURS of virtual time and HISTORIES of kernels that make soak runs, and where it begins.
HOURS ?= 10
HISTORIES ?= 1000000
FROM ?= 1
HISTORIES_FROM ?= 1

.PHONY: test check soak

test: ## every test
	go test -timeout 30m ./...

check: ## the shape of the source
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test ./integration -run 'TestImports|TestKernels|TestForeign|TestSource|TestReadme' -count=1

soak: ## hours of simulated clusters and histories of kernels, on all cores
	go run ./integration/soak -hours $(HOURS) -histories $(HISTORIES) -from $(FROM) -histories-from $(HISTORIES_FROM)
