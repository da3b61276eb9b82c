// Package imports_test holds the walls between the packages of this module. The
// rules stand in rules_test.go, as tables; read layers first.
package imports_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func TestImportsRunDownward(t *testing.T) {
	watchSources(t)
	// Files for one system only are invisible to the others.
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			packages := goList(t, goos)
			ours := 0
			for _, p := range packages {
				if _, ok := inModule(p.ImportPath); ok && len(p.GoFiles) > 0 {
					ours++
				}
			}
			if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == module+"/probe" && len(p.GoFiles) > 0 }) {
				t.Fatalf("go list found %d packages of this module, and probe is not among them: nothing was judged", ours)
			}
			t.Logf("%d packages judged", ours)
			for _, v := range violations(packages) {
				t.Error(v)
			}
		})
	}
}

// Who copies a client from the documents has no more than the client has. They are examples,
// which go list takes for tests, so they are read here.
func TestClientsForOthersUseNothingInternal(t *testing.T) {
	examples, err := filepath.Glob(filepath.Join(root, "docs/clients/go/*_example_test.go"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("there is no client to judge: %v", err)
	}
	for _, name := range examples {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		var imports []string
		for _, i := range file.Imports {
			imports = append(imports, strings.Trim(i.Path.Value, `"`))
		}
		if !slices.Contains(imports, module+"/proto/synmesh/v1") {
			t.Errorf("%s does not use the API", name)
		}
		for _, v := range violations([]listed{ours("docs/clients/go", imports...)}) {
			t.Error(v)
		}
	}
}

// goList lists the packages of the module and all they link on that system.
// What does not compile is listed all the same: the compiler speaks of it.
func goList(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-buildvcs=false", "-json=ImportPath,Name,GoFiles,Imports", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, exit.Stderr)
		}
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("reading what go list says: %v", err)
		}
		packages = append(packages, p)
	}
}

// watchSources looks at every Go file, so that go test does not take this
// test's answer from its cache when one of them changed: it sees what the test
// opens, but not what go list does.
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "dist", "node_modules"}, name)) {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRulesTakeWhatIsRight(t *testing.T) {
	packages := []listed{
		ours("proto/synmesh/v1", "google.golang.org/protobuf/proto"),
		ours("probe", "time", "net/netip"),
		ours("probe/packet", "encoding/binary", module+"/probe"),
		ours("probe/pcap", module+"/probe/packet", "github.com/google/gopacket/layers"),
		ours("probe/rawsock", "golang.org/x/sys/unix", "golang.org/x/net/bpf", module+"/probe/packet"),
		ours("probe/engine", module+"/probe", module+"/probe/rawsock"),
		ours("internal/convert", module+"/probe", module+"/proto/synmesh/v1"),
		ours("internal/lab", "golang.org/x/sys/unix"),
		ours("internal/lab/demo", module+"/internal/lab"),
		ours("agent", module+"/agent/spool", module+"/internal/convert", module+"/probe/engine"),
		ours("controller/history", "go.etcd.io/bbolt"),
		ours("controller/registry", "go.etcd.io/bbolt", module+"/internal/identity"),
		ours("controller/history/memory", module+"/controller/history", module+"/controller/history/rollup"),
		ours("controller/api/results", module+"/controller/history/rollup", module+"/controller/api/fault"),
		ours("controller/api/apitest", module+"/controller/history/memory"),
		ours("controller/api", module+"/controller/api/results", module+"/controller/fleet"),
		ours("controller/web", module+"/controller/web/gateway/synmesh/v1", module+"/controller/api/access"),
		ours("controller", module+"/controller/history", module+"/controller/web", module+"/proto/synmesh/v1"),
		ours("cmd/probe-controller", module+"/controller", module+"/cmd/probe-controller/pages"),
		ours("cmd/probectl", module+"/agent/policy", "github.com/spf13/cobra"),
		ours("docs/clients/go", module+"/proto/synmesh/v1", "google.golang.org/grpc"),
		{ImportPath: module + "/deploy", Name: "deploy"}, // tests alone
		{ImportPath: "golang.org/x/sys/unix", Name: "unix", GoFiles: []string{"a.go"}, Imports: []string{"syscall"}},
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
}

func TestRulesRefuseWhatIsWrong(t *testing.T) {
	tests := []struct {
		name     string
		packages []listed
		want     string
	}{
		{"the vocabulary imports a package of ours", []listed{ours("probe", module+"/probe/packet")}, "probe imports probe/packet: probe is the vocabulary"},
		{"the vocabulary imports another module", []listed{ours("probe", "golang.org/x/text/width")}, "probe is the vocabulary"},
		{"probe imports proto", []listed{ours("probe/engine", module+"/proto/synmesh/v1")}, "probe/engine imports proto/synmesh/v1: probe/... may import"},
		{"probe imports upward", []listed{ours("probe/engine", module+"/internal/convert")}, "probe/... may import"},
		{"probe imports another module", []listed{ours("probe/engine", "google.golang.org/grpc")}, "probe/... keeps to the standard library"},
		{"BPF outside the raw sockets", []listed{ours("probe/engine", "golang.org/x/net/bpf")}, "probe/... keeps to the standard library"},
		{"proto imports ours", []listed{ours("proto/synmesh/v1", module+"/probe")}, "proto/... may import"},
		{"internal imports upward", []listed{ours("internal/convert", module+"/agent")}, "internal/... may import"},
		{"the agent imports the controller", []listed{ours("agent/session", module+"/controller/plan")}, "agent/session imports controller/plan: agent/... may import"},
		{"the controller imports the agent", []listed{ours("controller/api/runs", module+"/agent")}, "controller/... may import"},
		{"something imports a command", []listed{ours("internal/convert", module+"/cmd/probectl")}, "nothing imports a command"},
		{"a command imports another", []listed{ours("cmd/probectl", module+"/cmd/probe-agent")}, "nothing imports a command"},
		{"x/sys/unix in the agent", []listed{ours("agent/spool", "golang.org/x/sys/unix")}, "agent/spool imports golang.org/x/sys/unix: only probe/rawsock and internal/lab may"},
		{"x/sys/unix elsewhere in probe", []listed{ours("probe/connect", "golang.org/x/sys/unix")}, "only probe/rawsock and internal/lab may"},
		{"bbolt outside the history", []listed{ours("agent/spool", "go.etcd.io/bbolt")}, "only controller/history and controller/registry may"},
		{"identity below those who have one", []listed{ours("internal/gossip", module+"/internal/identity")}, "internal/gossip imports internal/identity: only internal/identity and internal/lab/bench and agent and controller and cmd may"},
		{"gopacket outside probe/pcap", []listed{ours("internal/capture", "github.com/google/gopacket/pcapgo")}, "only probe/pcap may"},
		{"gopacket's fork outside probe/pcap", []listed{ours("internal/capture", "github.com/gopacket/gopacket")}, "only probe/pcap may"},
		{"the lab in a program", []listed{ours("cmd/probectl", module+"/internal/lab")}, "only internal/lab may"},
		{"an engine knows the other", []listed{ours("probe/connect", module+"/probe/engine")}, "probe/connect imports probe/engine: of probe/..., it may import only"},
		{"the engine without privilege links raw sockets", []listed{
			ours("probe/connect", module+"/probe/schedule"),
			ours("probe/schedule", module+"/probe/rawsock"),
		}, "probe/connect links probe/rawsock: it needs no privilege: probe/connect -> probe/schedule -> probe/rawsock"},
		{"the spool knows the session", []listed{ours("agent/spool", module+"/agent/session")}, "agent/spool imports agent/session: of agent/..., it may import only"},
		{"the session knows the whole agent", []listed{ours("agent/session", module+"/agent")}, "of agent/..., it may import only"},
		{"a service knows another", []listed{ours("controller/api/runs", module+"/controller/api/results")}, "controller/api/runs imports controller/api/results: of controller/..., it may import only"},
		{"a service knows the server", []listed{ours("controller/api/fleets", module+"/controller/api")}, "of controller/..., it may import only"},
		{"a service knows HTTP", []listed{ours("controller/api/results", module+"/controller/web")}, "of controller/..., it may import only"},
		{"HTTP asks the history itself", []listed{ours("controller/web", module+"/controller/history")}, "of controller/..., it may import only"},
		{"HTTP asks a service itself", []listed{ours("controller/web", module+"/controller/api/results")}, "of controller/..., it may import only"},
		{"the JSON's code knows more than the messages", []listed{ours("controller/web/gateway/synmesh/v1", module+"/controller/fleet")}, "of controller/..., it may import only"},
		{"the history counts for metrics", []listed{ours("controller/history", module+"/controller/metrics")}, "of controller/..., it may import only"},
		{"metrics ask the registry", []listed{ours("controller/metrics", module+"/controller/registry")}, "of controller/..., it may import only"},
		{"the form of backups knows the history", []listed{ours("controller/backup", module+"/controller/history")}, "of controller/..., it may import only"},
		{"the history knows the form of backups", []listed{ours("controller/history", module+"/controller/backup")}, "of controller/..., it may import only"},
		{"the plan knows the history", []listed{ours("controller/plan", module+"/controller/history")}, "of controller/..., it may import only"},
		{"the CA remembers", []listed{ours("controller/authority", module+"/controller/registry")}, "of controller/..., it may import only"},
		{"the controller chooses the history in memory", []listed{ours("controller", module+"/controller/history/memory")}, "controller imports controller/history/memory: only controller/history/memory and controller/api/apitest may"},
		{"the history in memory in a program", []listed{ours("cmd/probe-controller", module+"/controller/history/memory")}, "only controller/history/memory and controller/api/apitest may"},
		{"what tests share in a program", []listed{ours("cmd/probe-controller", module+"/controller/api/apitest")}, "only tests use it"},
		{"what tests of histories share in a history", []listed{ours("controller/history/memory", module+"/controller/history/historytest")}, "only tests use it"},
		{"Prometheus outside the metrics", []listed{ours("controller/web", "github.com/prometheus/client_golang/prometheus")}, "only controller/metrics may"},
		{"the gateway outside HTTP", []listed{ours("controller/api", "github.com/grpc-ecosystem/grpc-gateway/v2/runtime")}, "only controller/web may"},
		{"a folder of the controller that is new", []listed{ours("controller/sauce")}, "controller/sauce: no neighbours are known"},
		{"probectl knows the controller", []listed{ours("cmd/probectl", module+"/controller/backup")}, "cmd/probectl links controller: the controller is another program, and is asked: cmd/probectl -> controller/backup"},
		{"probectl is an agent", []listed{
			ours("cmd/probectl", module+"/agent"),
			ours("agent", module+"/agent/session"),
		}, "cmd/probectl links agent/session: probectl probes by itself"},
		{"an agent serves HTTP", []listed{ours("cmd/probe-agent", module+"/controller/web")}, "cmd/probe-agent links controller: "},
		{"the controller is an agent", []listed{ours("cmd/probe-controller", module+"/agent/policy")}, "cmd/probe-controller links agent: "},
		{"a client of others knows our inside", []listed{ours("docs/clients/go", module+"/internal/identity/contexts")}, "docs/clients/go imports internal/identity/contexts: docs/... may import, of this module, only proto"},
		{"a vague folder", []listed{ours("internal/util")}, "internal/util (package util): the name does not tell"},
		{"a vague name", []listed{{ImportPath: module + "/agent/x", Name: "helpers", GoFiles: []string{"a.go"}}}, "agent/x (package helpers)"},
		{"a folder nobody knows", []listed{ours("pkg/things")}, "pkg/things: no layer is known"},
		{"the controller links raw sockets", []listed{
			ours("cmd/probe-controller", module+"/controller"),
			ours("controller", module+"/internal/prober"),
			ours("internal/prober", module+"/probe/rawsock"),
		}, "cmd/probe-controller links probe/rawsock: the controller opens no raw sockets: cmd/probe-controller -> controller -> internal/prober -> probe/rawsock"},
		{"a package of the controller links the engine", []listed{ours("controller/fleet", module+"/probe/engine")}, "controller/fleet links probe/engine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := violations(tt.packages)
			if !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, tt.want) }) {
				t.Errorf("got %q, want one with %q", got, tt.want)
			}
		})
	}
}

// ours makes up a package of this module.
func ours(dir string, imports ...string) listed {
	return listed{
		ImportPath: module + "/" + dir,
		Name:       dir[strings.LastIndex(dir, "/")+1:],
		GoFiles:    []string{"a.go"},
		Imports:    imports,
	}
}
