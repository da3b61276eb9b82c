//go:build linux

package oracle_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// bench is a controller, agents, and what the connections between them go through.
type bench struct {
	*testing.T
	folder     string
	wire       *wire
	controller *exec.Cmd
	agents     map[string]*agent
}

// agent is all lives of an agent.
type agent struct {
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

func newBench(t *testing.T) *bench {
	b := &bench{T: t, folder: t.TempDir(), wire: listen(t), agents: make(map[string]*agent)}
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

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
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

func (b *bench) startController() {
	b.Helper()
	b.controller = b.program("controller", filepath.Join(b.folder, "history"))
	out, err := b.controller.StdoutPipe()
	b.must(err)
	b.must(b.controller.Start())
	address, err := bufio.NewReader(out).ReadString('\n')
	b.must(err)
	b.wire.lead(address[:len(address)-1])
}

func (b *bench) agent(name string, limit int64) *agent {
	a := &agent{name: name, limit: limit}
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
	b.must(l.cmd.Start())
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

// events reads a journal.
func (b *bench) events(l *life, status func(status), produced func(n, at int64), acknowledged func(epoch, sequence uint64)) {
	b.Helper()
	text, err := os.ReadFile(l.journal)
	b.must(err)
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it died
		}
		b.event(string(line), status, produced, acknowledged)
	}
}

func (b *bench) event(line string, told func(status), produced func(n, at int64), acknowledged func(epoch, sequence uint64)) {
	var s status
	var n, at int64
	var epoch, sequence uint64
	if k, _ := fmt.Sscanf(line, "status %d %d %d %d %d %d %d %d", &s.produced, &s.held, &s.pending, &s.full, &s.disk, &s.rejected, &s.corrupt, &s.crash); k == 8 {
		if told != nil {
			told(s)
		}
	} else if k, _ := fmt.Sscanf(line, "produced %d %d", &n, &at); k == 2 {
		if produced != nil {
			produced(n, at)
		}
	} else if k, _ := fmt.Sscanf(line, "acknowledged %d %d", &epoch, &sequence); k == 2 {
		if acknowledged != nil {
			acknowledged(epoch, sequence)
		}
	}
}

// last returns the last status of a life.
func (b *bench) last(l *life) (last status) {
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
	for line := range bytes.Lines(tail) {
		if bytes.HasSuffix(line, []byte("\n")) {
			b.event(string(line), func(s status) { last = s }, nil, nil)
		}
	}
	return last
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

// wire passes connections on to the controller of the moment.
type wire struct {
	net.Listener
	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func listen(t *testing.T) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, conns: make(map[net.Conn]bool)}
	w.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.all.Go(func() { w.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.all.Wait()
	})
	return w
}

// lead has new connections go to an address.
func (w *wire) lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

// cut ends all connections there are.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

func (w *wire) pass(c net.Conn) {
	defer c.Close()
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	w.mu.Lock()
	w.conns[c], w.conns[d] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(c, d); _ = c.Close(); _ = d.Close() })
	both.Go(func() { _, _ = io.Copy(d, c); _ = c.Close(); _ = d.Close() })
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	delete(w.conns, d)
}
