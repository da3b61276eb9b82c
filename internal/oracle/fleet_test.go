//go:build linux

package oracle_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// bench is a controller and agents on hosts of a network.
type bench struct {
	*network
	folder     string
	controller *exec.Cmd
	agents     map[string]*agent
}

// agent is all lives of an agent.
type agent struct {
	*site
	name  string
	limit int64
	lives []*life
}

// life is one process of an agent.
type life struct {
	cmd     *exec.Cmd
	journal string
	ended   time.Time
}

func newBench(t *testing.T, agents ...string) *bench {
	b := &bench{network: newNetwork(t, agents), folder: t.TempDir(), agents: make(map[string]*agent)}
	t.Cleanup(func() {
		b.kill(b.controller)
		for _, a := range b.agents {
			if n := len(a.lives); n > 0 {
				b.kill(a.lives[n-1].cmd)
			}
		}
	})
	return b
}

func (b *bench) program(name string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	b.must(err)
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"="+name)
	c.Stderr = os.Stderr
	return c
}

// kill ends a process without a word; what it had written without a sync stays. nil is none.
func (b *bench) kill(c *exec.Cmd) {
	if c != nil && c.ProcessState == nil {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// stop ends a process in good order.
func (b *bench) stop(c *exec.Cmd) {
	b.Helper()
	b.must(c.Process.Signal(syscall.SIGTERM))
	if err := c.Wait(); err != nil {
		b.Fatalf("%v: %v", c.Args, err)
	}
}

// startController returns when it listens.
func (b *bench) startController() {
	b.Helper()
	b.controller = b.program("controller", filepath.Join(b.folder, "history"))
	out, err := b.controller.StdoutPipe()
	b.must(err)
	b.must(b.network.controller.Start(b.controller))
	_, err = bufio.NewReader(out).ReadString('\n')
	b.must(err)
}

func (b *bench) agent(name string, limit int64) *agent {
	a := &agent{site: b.sites[name], name: name, limit: limit}
	b.agents[name] = a
	return a
}

// startAgent begins another life of an agent.
func (b *bench) startAgent(a *agent, controller string, rate, most int64) *life {
	b.Helper()
	l := &life{journal: filepath.Join(b.folder, fmt.Sprintf("%s-%d", a.name, len(a.lives)))}
	l.cmd = b.program("agent", a.name, filepath.Join(b.folder, "spool-"+a.name), fmt.Sprint(a.limit), controller,
		fmt.Sprint(len(a.lives)), fmt.Sprint(rate), fmt.Sprint(most))
	out, err := os.Create(l.journal)
	b.must(err)
	defer out.Close()
	l.cmd.Stdout = out
	b.must(a.host.Start(l.cmd))
	a.lives = append(a.lives, l)
	return l
}

// killAgent ends the life of an agent.
func (b *bench) killAgent(a *agent) {
	l := a.lives[len(a.lives)-1]
	b.kill(l.cmd)
	l.ended = time.Now()
}

// status is the last that an agent has told.
type status struct{ produced, held, pending, full, disk, rejected, corrupt, crash uint64 }

func (s *status) dropped() uint64 { return s.full + s.disk + s.rejected + s.corrupt + s.crash }

// diary is what a life has told.
type diary struct {
	status       status                  // the last
	produced     []struct{ n, at int64 } // so many, by when
	acknowledged [][2]uint64             // epoch and sequence
	connected    bool                    // as of the end
	parted       []time.Time             // when sessions ended
}

// read reads a journal.
func (b *bench) read(l *life) (d diary) {
	b.Helper()
	text, err := os.ReadFile(l.journal)
	b.must(err)
	d.take(text)
	return d
}

// take takes in whole lines: where the last is none, the process died.
func (d *diary) take(text []byte) {
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			return
		}
		var s status
		var n, at int64
		var id [2]uint64
		text := string(line)
		if k, _ := fmt.Sscanf(text, "status %d %d %d %d %d %d %d %d", &s.produced, &s.held, &s.pending, &s.full, &s.disk, &s.rejected, &s.corrupt, &s.crash); k == 8 {
			d.status = s
		} else if k, _ := fmt.Sscanf(text, "produced %d %d", &n, &at); k == 2 {
			d.produced = append(d.produced, struct{ n, at int64 }{n, at})
		} else if k, _ := fmt.Sscanf(text, "acknowledged %d %d", &id[0], &id[1]); k == 2 {
			d.acknowledged = append(d.acknowledged, id)
		} else if k, _ := fmt.Sscanf(text, "disconnected %d", &at); k == 1 {
			d.connected, d.parted = false, append(d.parted, time.Unix(0, at))
		} else if text == "connected\n" {
			d.connected = true
		}
	}
}

// last returns the last status of a life.
func (b *bench) last(l *life) status {
	b.Helper()
	f, err := os.Open(l.journal)
	b.must(err)
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > 4096 {
		_, _ = f.Seek(-4096, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	tail, err := io.ReadAll(f)
	b.must(err)
	var d diary
	d.take(tail)
	return d.status
}

// await waits until a life's status is as wanted.
func (b *bench) await(l *life, within time.Duration, what string, wanted func(status) bool) {
	b.Helper()
	deadline := time.Now().Add(within)
	for {
		s := b.last(l)
		if wanted(s) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %s has not come within %v: %+v", l.journal, what, within, s)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// found is what a history has of an agent.
type found struct {
	results map[int64]time.Duration // life<<32|number -> how long after it was made it was stored
	at      map[int64]time.Time     // when it was stored
	reports map[[2]uint64]bool      // epoch and sequence
}

// scan reads the history, in which nothing may be twice.
func (b *bench) scan() map[string]*found {
	b.Helper()
	store, err := history.Open(history.Config{Dir: filepath.Join(b.folder, "history")})
	b.must(err)
	defer store.Close()
	all := make(map[string]*found)
	for name := range b.agents {
		all[name] = &found{make(map[int64]time.Duration), make(map[int64]time.Time), make(map[[2]uint64]bool)}
	}
	for e, err := range store.Scan(context.Background(), time.Time{}, time.Time{}, nil) {
		b.must(err)
		f := all[e.Agent]
		if f == nil {
			b.Fatalf("there are reports of %s, and no such agent", e.Agent)
		}
		id := [2]uint64{e.Report.GetEpoch(), e.Report.GetSequence()}
		if f.reports[id] {
			b.Errorf("report %d of epoch %d of %s is stored twice", id[1], id[0], e.Agent)
		}
		f.reports[id] = true
		for row := range convert.Rows(e.Agent, e.Report) {
			if _, twice := f.results[int64(row.RTT)]; twice {
				b.Errorf("result %d of life %d of %s is stored twice", row.RTT&0xffffffff, row.RTT>>32, e.Agent)
			}
			f.results[int64(row.RTT)] = e.Stored.Sub(row.Time)
			f.at[int64(row.RTT)] = e.Stored
		}
	}
	return all
}
