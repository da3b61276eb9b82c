package imports_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const module = "github.com/synmesh/synmesh"

// layers says, for each folder at the top, which of them its packages may
// import. Arrows run downward only. What stands in none of them has no place.
var layers = map[string][]string{
	"proto":      {"proto"},
	"probe":      {"probe"},
	"internal":   {"proto", "probe", "internal"},
	"agent":      {"proto", "probe", "internal", "agent"},
	"controller": {"proto", "probe", "internal", "controller"},
	"cmd":        {"proto", "probe", "internal", "agent", "controller"},
	"docs":       {"proto"}, // clients for others to begin with, who have no more
}

// neighbours says, for each folder of probe, agent and controller, which others at the same
// top it may import beside what is in it: all that its readers have to know of. The
// packages agent and controller put theirs together, and nobody below knows them.
var neighbours = map[string][]string{
	"probe/connect":  {"probe", "probe/resolve", "probe/schedule"},
	"probe/engine":   {"probe", "probe/packet", "probe/rawsock", "probe/resolve", "probe/schedule"},
	"probe/packet":   {"probe"},
	"probe/pcap":     {"probe/packet"},
	"probe/rawsock":  {"probe/packet"},
	"probe/record":   {"probe/packet", "probe/pcap", "probe/rawsock"},
	"probe/resolve":  {"probe"},
	"probe/schedule": {"probe"},

	"agent/policy":    {},
	"agent/responder": {},
	"agent/session":   {"agent/spool"},
	"agent/spool":     {},
	"agent/tasks":     {"agent/policy"},

	"controller/authority": {},
	"controller/backup":    {},
	"controller/catalogue": {},
	"controller/feed":      {},
	"controller/fleet":     {},
	"controller/history":   {},
	"controller/metrics":   {"controller/api", "controller/fleet", "controller/history"},
	"controller/plan":      {"controller/fleet"},
	"controller/registry":  {},
	"controller/web":       {"controller/api/access", "controller/api/fault"},

	"controller/api":              {"controller/catalogue", "controller/feed", "controller/fleet", "controller/history", "controller/plan"},
	"controller/api/access":       {"controller/api/fault", "controller/registry"},
	"controller/api/agents":       {"controller/api/fault", "controller/feed", "controller/fleet", "controller/history"},
	"controller/api/apitest":      {"controller/authority", "controller/history", "controller/registry"},
	"controller/api/backups":      {"controller/api/fault"},
	"controller/api/enrolments":   {"controller/api/fault", "controller/registry"},
	"controller/api/fault":        {"controller/registry"},
	"controller/api/fleets":       {"controller/api/fault", "controller/fleet"},
	"controller/api/identities":   {"controller/api/fault", "controller/registry"},
	"controller/api/measurements": {"controller/api/fault", "controller/catalogue", "controller/fleet", "controller/plan"},
	"controller/api/results":      {"controller/api/fault", "controller/fleet", "controller/history"},
	"controller/api/runs":         {"controller/api/fault", "controller/feed", "controller/fleet"},
}

// confined imports belong to the folders named here, and to tests. What is
// behind such a wall can be replaced, or read with care, in one place.
var confined = []struct {
	what string
	to   []string
	why  string
}{
	{"golang.org/x/sys/unix", []string{"probe/rawsock", "internal/lab"}, "what needs the kernel is asked of probe/rawsock"},
	{"github.com/google/gopacket", []string{"probe/pcap"}, "packets are crafted and parsed by probe/packet, and written to files by probe/pcap"},
	{"github.com/gopacket/gopacket", []string{"probe/pcap"}, "packets are crafted and parsed by probe/packet, and written to files by probe/pcap"},
	{"go.etcd.io/bbolt", []string{"controller/history", "controller/registry"}, "another store may take its place: ask controller/history or controller/registry"},
	{"github.com/grpc-ecosystem/grpc-gateway", []string{"controller/web"}, "the API is gRPC, and controller/web makes JSON of it"},
	{"github.com/prometheus", []string{"controller/metrics"}, "what is counted is told to controller/metrics"},
	{"go.opentelemetry.io", []string{"controller/metrics"}, "what is counted is told to controller/metrics"},
	{module + "/internal/identity", []string{"internal/identity", "internal/lab/bench", "agent", "controller", "cmd"}, "nothing else below them knows who is who; hand it a key or a name"},
	{module + "/internal/lab", []string{"internal/lab"}, "only tests and internal/lab/demo build networks"},
	{module + "/controller/api/apitest", []string{"controller/api/apitest"}, "only tests use it"},
	{module + "/controller/history/historytest", []string{"controller/history/historytest"}, "only tests use it"},
	{module + "/controller/history/memory", []string{"controller/history/memory", "controller/api/apitest"}, "a controller is handed its history, and no part of it knows which"},
}

// probeUses is all that probe/... takes from other modules, and where, so that
// the measuring engine can be read to the bottom.
var probeUses = map[string]string{
	"golang.org/x/net/bpf":       "probe/rawsock",
	"golang.org/x/sys/unix":      "probe/rawsock",
	"github.com/google/gopacket": "probe/pcap",
}

// unlinked packages, and those below them, are not reached from these folders, however indirectly.
var unlinked = []struct {
	from, what, why string
}{
	{"cmd/probe-controller", "probe/rawsock", "the controller opens no raw sockets"},
	{"cmd/probe-controller", "probe/engine", "the controller probes nothing itself"},
	{"cmd/probe-controller", "probe/connect", "the controller probes nothing itself"},
	{"cmd/probe-controller", "agent", "the agent is another program"},
	{"cmd/probe-agent", "controller", "the controller is another program, and is asked"},
	{"cmd/probectl", "controller", "the controller is another program, and is asked"},
	{"cmd/probectl", "agent/session", "probectl probes by itself, and is no agent"},
	{"controller", "probe/rawsock", "the controller opens no raw sockets"},
	{"controller", "probe/engine", "the controller probes nothing itself"},
	{"probe/connect", "probe/rawsock", "it needs no privilege"},
}

// vague names say nothing about what a package owns.
var vague = []string{"common", "util", "utils", "types", "helpers"}

// listed is what go list says of a package. Imports leaves those of tests out.
type listed struct {
	ImportPath string
	Name       string
	GoFiles    []string
	Imports    []string
}

// violations judges the packages of this module; the others are there to be
// followed. Each sentence says which package does what, and what would be right.
func violations(packages []listed) []string {
	var found []string
	graph := make(map[string][]string)
	for _, p := range packages {
		graph[p.ImportPath] = p.Imports
	}
	for _, p := range packages {
		dir, ours := inModule(p.ImportPath)
		if !ours || len(p.GoFiles) == 0 {
			continue
		}
		if slices.Contains(vague, p.Name) || slices.Contains(vague, path.Base(dir)) {
			found = append(found, fmt.Sprintf("%s (package %s): the name does not tell what it owns; call it after that", dir, p.Name))
		}
		for _, imported := range p.Imports {
			for _, right := range judge(dir, imported) {
				target, _ := inModule(imported)
				found = append(found, fmt.Sprintf("%s imports %s: %s", dir, target, right))
			}
		}
		for _, u := range unlinked {
			if !within(dir, u.from) {
				continue
			}
			if chain := reach(graph, p.ImportPath, module+"/"+u.what); chain != "" {
				found = append(found, fmt.Sprintf("%s links %s: %s: %s", dir, u.what, u.why, chain))
			}
		}
		if layers[top(dir)] == nil {
			found = append(found, fmt.Sprintf("%s: no layer is known for this folder; move it under proto, probe, internal, agent, controller or cmd", dir))
		}
		if home(dir) == "" {
			found = append(found, fmt.Sprintf("%s: no neighbours are known for this folder; say in this test which it may import", dir))
		}
	}
	return found
}

// judge says what would be right where the package in dir must not import what
// it does, once for each rule that is broken.
func judge(dir, imported string) []string {
	var rights []string
	target, ours := inModule(imported)
	switch {
	case dir == "probe" && !standard(imported):
		rights = append(rights, "probe is the vocabulary and uses the standard library only")
	case ours && within(target, "cmd") && !within(target, command(dir)):
		rights = append(rights, "nothing imports a command; move what is shared below cmd")
	case ours && !mayImport(dir, target):
		rights = append(rights, fmt.Sprintf("%s/... may import, of this module, only %s", top(dir), strings.Join(layers[top(dir)], ", ")))
	case ours && !mayKnow(dir, target):
		rights = append(rights, fmt.Sprintf("of %s/..., it may import only what neighbours in this test lists", top(dir)))
	case !ours && within(dir, "probe") && !standard(imported) && !probeMayUse(dir, imported):
		rights = append(rights, "probe/... keeps to the standard library but for what probeUses in this test lists")
	}
	for _, c := range confined {
		if within(imported, c.what) && !slices.ContainsFunc(c.to, func(to string) bool { return within(dir, to) }) {
			rights = append(rights, fmt.Sprintf("only %s may; %s", strings.Join(c.to, " and "), c.why))
		}
	}
	return rights
}

func mayImport(dir, target string) bool {
	return slices.Contains(layers[top(dir)], top(target)) || within(target, command(dir))
}

// mayKnow tells whether a package may import another of the same top.
func mayKnow(dir, target string) bool {
	at := home(dir)
	return at == "" || top(dir) != top(target) || within(target, at) || slices.ContainsFunc(neighbours[at], func(n string) bool {
		return target == n || n != top(n) && within(target, n)
	})
}

// home returns the folder whose neighbours a package has: the nearest in the table. Above
// and beside the table that is its own top; it is empty where the table has a gap.
func home(dir string) string {
	if t := top(dir); dir == t || !slices.Contains([]string{"probe", "agent", "controller"}, t) {
		return t
	}
	for at := dir; at != "."; at = path.Dir(at) {
		if _, ok := neighbours[at]; ok {
			return at
		}
	}
	return ""
}

func probeMayUse(dir, imported string) bool {
	for what, where := range probeUses {
		if within(imported, what) && within(dir, where) {
			return true
		}
	}
	return false
}

// reach returns the shortest chain of imports from a package to another, or to one below that, or "".
func reach(graph map[string][]string, from, to string) string {
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if within(at, to) {
			chain, _ := inModule(at)
			for at = came[at]; at != ""; at = came[at] {
				step, _ := inModule(at)
				chain = step + " -> " + chain
			}
			return chain
		}
		for _, next := range graph[at] {
			if _, seen := came[next]; !seen {
				came[next] = at
				queue = append(queue, next)
			}
		}
	}
	return ""
}

// inModule returns the folder of a package of this module; the path of any
// other comes back as it is.
func inModule(importPath string) (dir string, ours bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func standard(importPath string) bool { return !strings.Contains(top(importPath), ".") }

func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// command returns the folder of the command that dir belongs to; what lies in
// there is that command's own. For other folders it returns one that is nobody's.
func command(dir string) string {
	if elements := strings.Split(dir, "/"); elements[0] == "cmd" && len(elements) > 1 {
		return path.Join(elements[:2]...)
	}
	return "none"
}

func within(dir, folder string) bool {
	return dir == folder || strings.HasPrefix(dir, folder+"/")
}
