//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// page is what was measured, in sentences and tables.
type page struct {
	options options
	peers   peers
	begun   time.Time
	before  string // the load average at the beginning
	body    strings.Builder
	behind  []string // where a peer does better
	failed  []string // peers that could not do it here
	timed   string   // the address whose handshakes the peers have timed
}

func newPage(o options, ps peers) *page {
	return &page{options: o, peers: ps, begun: time.Now(), before: load()}
}

// section starts a section of the page.
func (p *page) section(title, text string) {
	fmt.Fprintf(&p.body, "## %s\n\n%s\n\n", title, strings.TrimSpace(text))
}

// table writes a table; the first column is text, the others are figures.
func (p *page) table(head []string, rows [][]string) {
	fmt.Fprintf(&p.body, "| %s |\n| --- |%s\n", strings.Join(head, " | "), strings.Repeat(" ---: |", len(head)-1))
	for _, r := range rows {
		fmt.Fprintf(&p.body, "| %s |\n", strings.Join(r, " | "))
	}
	p.body.WriteByte('\n')
}

// lose notes where a peer does better than Synmesh.
func (p *page) lose(format string, args ...any) {
	p.behind = append(p.behind, fmt.Sprintf(format, args...))
}

// fail notes a peer that could not do it here. What Synmesh cannot do, and what was interrupted, is returned.
func (p *page) fail(ctx context.Context, name string, err error) error {
	if strings.HasPrefix(name, ours) || ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.failed = append(p.failed, fmt.Sprintf("%s failed here: %v", name, err))
	return nil
}

// finish adds what can be said only at the end.
func (p *page) finish() {
	if len(p.behind) > 0 {
		p.section("Where Synmesh is behind", "- "+strings.Join(p.behind, "\n- "))
	}
	left := p.failed
	if len(p.peers.missing) > 0 {
		left = append(left, "Not installed here: "+strings.Join(p.peers.missing, ", ")+".")
	}
	if len(left) > 0 {
		p.section("Left out", "- "+strings.Join(left, "\n- "))
	}
}

const intro = `# Benchmarks

Written by %s, which measures Synmesh and its peers in one run on one
machine, between two network namespaces that a virtual Ethernet joins (veth); no
packet leaves them. Run it yourself: figures of two machines cannot be
compared, ratios hardly.

| | |
| --- | --- |
| date | %s |
| machine | %d cores, %s |
| kernel | Linux %s |
| Go | %s |
| load average before and after | %s, %s |

`

func (p *page) markdown() string {
	whole := full
	whole.profiles = p.options.profiles
	by := "`make bench`"
	if p.options != whole {
		by = "a part of `make bench`"
	}
	return fmt.Sprintf(intro, by, p.begun.UTC().Format("2006-01-02 15:04 MST"), runtime.NumCPU(), processor(),
		kernel(), runtime.Version(), p.before, load()) + strings.TrimSpace(p.body.String()) + "\n"
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of an unknown release"
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return release
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range bytes.Lines(b) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
			return string(bytes.TrimSpace(value))
		}
	}
	return runtime.GOARCH
}

// load is the load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
