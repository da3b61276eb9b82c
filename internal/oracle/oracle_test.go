//go:build linux

package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kills is how many processes die; more of them by SYNMESH_KILLS, as `make torture` has it.
func kills(t *testing.T) int {
	text := os.Getenv("SYNMESH_KILLS")
	if text == "" {
		return 50
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("SYNMESH_KILLS: %v", err)
	}
	return n
}

// dark is how long a site is cut off for its sessions to end although both sides
// live: they give a connection up if nothing of what they said was answered for 10 s,
// and agents say something every 5 s.
const dark = 16 * time.Second

// between is how many kills there are between two such times.
const between = 10

// Whatever dies at whatever moment, and whatever does not get through: what was
// produced is stored once, or dropped and counted. An agent loses what it had made
// right before it was killed, and that was not counted as produced.
func TestEveryResultIsStoredOnceOrCountedAsDropped(t *testing.T) {
	const rate = 2000
	b := newBench(t, "ample", "tight")
	agents := []*agent{b.agent("ample", 1<<30), b.agent("tight", 16<<10)}
	b.startController()
	for _, a := range agents {
		b.startAgent(a, b.address(), rate, -1)
	}
	stop := b.snipAll()
	n, controllers, outages, due := kills(t), 0, 0, 0
	first := rand.IntN(2 * int(lasting)) // of the ways to be cut off
	var away *outage                     // at the moment
	for i := range n {
		if away == nil && i >= due {
			way := first + outages
			away = b.cutOff(agents[way%2], kind(way+way/2)%lasting)
			outages++
		}
		time.Sleep(rand.N(500 * time.Millisecond))
		if away != nil && away.over() {
			b.settle(away)
			away, due = nil, i+between
		}
		if rand.IntN(3) > 0 {
			a := agents[rand.IntN(2)]
			if away != nil {
				a = agents[1-slices.Index(agents, away.agent)]
			}
			b.killAgent(a)
			b.startAgent(a, b.address(), rate, -1)
			continue
		}
		controllers++
		b.kill(b.controller)
		time.Sleep(rand.N(400 * time.Millisecond))
		b.startController()
	}
	if away != nil {
		b.settle(away)
	}
	cuts := stop()
	b.finish(agents)
	t.Logf("%d kills, %d of them of the controller; links cut: %s, %d of these for %v", n, controllers, cuts, outages, dark)
	all := b.scan()
	for _, a := range agents {
		b.judge(a, all[a.name])
	}
	if b.last(agents[1].lives[len(agents[1].lives)-1]).full == 0 {
		t.Error("the small spool was never full")
	}
}

// outage is a long time of which an agent hears nothing. Nobody may kill it meanwhile.
type outage struct {
	agent *agent
	life  *life
	how   kind
	began time.Time
	ended chan struct{}
	err   error // once it has ended
}

func (o *outage) over() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

// cutOff begins an outage of an agent as soon as that has a session.
func (b *bench) cutOff(a *agent, how kind) *outage {
	b.Helper()
	o := &outage{agent: a, life: a.lives[len(a.lives)-1], how: how, ended: make(chan struct{})}
	a.mu.Lock()
	for deadline := time.Now().Add(patience); !b.read(o.life).connected; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.mu.Unlock()
			b.Fatalf("%s is not connected after %v", a.name, patience)
		}
	}
	o.began = time.Now()
	b.cutting.Go(func() {
		defer close(o.ended)
		defer a.mu.Unlock()
		o.err = a.cut(how, dark, b.Context().Done())
	})
	return o
}

// settle waits for the end of an outage, which no session outlives.
func (b *bench) settle(o *outage) {
	b.Helper()
	<-o.ended
	b.must(o.err)
	parted := func() bool { return slices.ContainsFunc(b.read(o.life).parted, o.began.Before) }
	for deadline := time.Now().Add(5 * time.Second); !parted(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%s had the same session after %v of: %v", o.agent.name, dark, o.how)
		}
	}
}

// finish has all that is held delivered, and ends everything.
func (b *bench) finish(agents []*agent) {
	b.Helper()
	for _, a := range agents {
		b.killAgent(a)
		l := b.startAgent(a, b.address(), 0, 0)
		b.await(l, patience, "an empty spool", func(s status) bool { return s.held == 0 && s.produced > 0 })
		b.stop(l.cmd)
	}
	b.stop(b.controller)
}

// judge compares what an agent's journals say with what is stored.
func (b *bench) judge(a *agent, f *found) {
	b.Helper()
	end := b.last(a.lives[len(a.lives)-1])
	if stored := uint64(len(f.results)); end.produced != stored+end.dropped() || end.held != 0 {
		b.Errorf("%s: %d produced, but %d stored and %d dropped, with %d held", a.name, end.produced, stored, end.dropped(), end.held)
	}
	acknowledged, made, lost := 0, int64(0), int64(0)
	var risks []time.Duration
	for i, l := range a.lives {
		d := b.read(l)
		for _, id := range d.acknowledged {
			acknowledged++
			if !f.reports[id] {
				b.Errorf("%s: report %d of epoch %d was acknowledged, and is not stored", a.name, id[1], id[0])
			}
		}
		var n int64 // made for sure
		if k := len(d.produced); k > 0 {
			n = d.produced[k-1].n
		}
		made += n
		if a.name == "tight" {
			continue
		}
		// Nothing is dropped: what is missing is at the end, and young.
		var first int64
		for first < n && stored(f, i, first) {
			first++
		}
		for k := first; k < n; k++ {
			if stored(f, i, k) {
				b.Errorf("%s: of life %d, result %d is missing and %d is stored", a.name, i, first, k)
				break
			}
		}
		if first < n && !l.ended.IsZero() {
			at := d.produced[slices.IndexFunc(d.produced, func(t struct{ n, at int64 }) bool { return t.n > first })].at
			risks = append(risks, l.ended.Sub(time.Unix(0, at)))
			lost += n - first
		}
	}
	b.Logf("%s: %d lives, %d results made; produced %d = stored %d + dropped %d (full %d, disk %d, rejected %d, corrupt %d, crash %d)",
		a.name, len(a.lives), made, end.produced, len(f.results), end.dropped(), end.full, end.disk, end.rejected, end.corrupt, end.crash)
	b.Logf("%s: %d acknowledgements, each of a stored report; %d reports stored", a.name, acknowledged, len(f.reports))
	if len(risks) > 0 {
		slices.Sort(risks)
		at := func(p float64) time.Duration {
			return risks[int(p*float64(len(risks)-1))].Round(time.Millisecond)
		}
		b.Logf("%s: %d results died in memory with %d processes; the oldest of each had been made p50 %v, p90 %v, at most %v before",
			a.name, lost, len(risks), at(0.5), at(0.9), at(1))
	}
}

func stored(f *found, life int, n int64) bool {
	_, ok := f.results[int64(life)<<32|n]
	return ok
}

// A day without a controller: 5 reports a second with 20 results in each, made
// as fast as the disk takes them, by agents that are killed. The short form of
// this test makes a quarter of an hour of it.
func TestADayOfBacklogDrainsWhileNewResultsFlow(t *testing.T) {
	const rate = 100
	span := 15 * time.Minute
	if kills(t) >= 1000 {
		span = 24 * time.Hour
	}
	b := newBench(t, "away")
	a := b.agent("away", 1<<30)
	old := int64(span.Seconds()) * rate
	const lives = 6
	began := time.Now()
	for range lives {
		l := b.startAgent(a, "", 0, old/lives)
		b.await(l, 5*patience, "the backlog", func(s status) bool { return s.pending == 0 && s.produced >= uint64(len(a.lives))*uint64(old/lives) })
		b.killAgent(a)
	}
	t.Logf("backlog of %v: %d results in about %d reports, made in %v", span, old, old/perReport, time.Since(began).Round(time.Millisecond))

	b.startController()
	began = time.Now()
	l := b.startAgent(a, b.address(), rate, -1)
	// Done once no more is held than what is made meanwhile.
	b.await(l, 30*time.Minute, "the end of the backlog", func(s status) bool { return s.produced > uint64(old/lives*lives) && s.held < 4*rate })
	drained := time.Since(began)
	peak := memory(t, l.cmd.Process.Pid)
	time.Sleep(time.Second)
	b.finish([]*agent{a})

	f := b.scan()[a.name]
	b.judge(a, f)
	var delays []time.Duration
	for id, delay := range f.results {
		if id>>32 == lives && f.at[id].Before(began.Add(drained)) {
			delays = append(delays, delay)
		}
	}
	if len(delays) == 0 {
		t.Fatal("nothing new was stored while the backlog drained")
	}
	slices.Sort(delays)
	at := func(p float64) time.Duration {
		return delays[int(p*float64(len(delays)-1))].Round(time.Millisecond)
	}
	t.Logf("drained in %v (%.0f reports a second); of %d results made meanwhile, stored after p50 %v, p99 %v, at most %v; the agent's memory peaked at %s",
		drained.Round(time.Millisecond), float64(len(f.reports))/drained.Seconds(), len(delays), at(0.5), at(0.99), at(1), peak)
}

// memory returns the most that a process has had resident.
func memory(t *testing.T, pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if peak, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(peak)
		}
	}
	return "unknown"
}
