//go:build linux

package outage_test

import (
	"os"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

const (
	// notice is how long either side may take for a session on which nothing comes through.
	notice = 45 * time.Second
	// spread is that of agents that come back, and attempt how long their last attempt
	// without an answer goes on.
	spread  = 30 * time.Second
	attempt = 30 * time.Second
)

// dark is what a link does when nothing comes through.
var dark = lab.Impairment{Loss: 1}

// swallow has nothing come through from a node any more.
func (b *bench) swallow(a *agentHost, from *lab.Node) {
	b.Helper()
	b.must(a.link.SetDirection(from, dark))
}

// A short silence costs no session: TCP sends again what was swallowed.
func TestASessionOutlivesAShortSilence(t *testing.T) {
	b := newBench(t, "fra-1", "nyc-1")
	b.gathered(time.Minute)
	before := b.sessions()
	a := b.agents["fra-1"]
	b.must(a.link.Down())
	// Longer than it is between two heartbeats, so that something is swallowed.
	time.Sleep(6 * time.Second)
	b.must(a.link.Up())
	heard := time.Now()
	b.until("the agent is heard again", time.Minute, func() bool { return b.lastSeen("fra-1").After(heard) })
	t.Logf("it was heard again after %v; %d packets had been swallowed", time.Since(heard), a.link.Counts().Lost)
	for name, began := range b.sessions() {
		if !began.Equal(before[name]) {
			t.Errorf("%s has another session", name)
		}
	}
	if n := len(b.sessions()); n != len(before) {
		t.Errorf("%d agents hold a session, want %d", n, len(before))
	}
	if a.link.Counts().Lost == 0 {
		t.Error("nothing was swallowed")
	}
}

// Where packets vanish without a word, both sides notice in time, whichever way it is
// that nothing comes through, and come together again when it does. Nobody else is
// touched.
func TestASilentLinkIsNoticedAndHealed(t *testing.T) {
	if os.Getenv("SYNMESH_TORTURE") == "" {
		t.Skip("takes minutes; SYNMESH_TORTURE=1 has it run")
	}
	b := newBench(t, "both-1", "there-1", "back-1", "well-1")
	b.gathered(time.Minute)
	time.Sleep(20 * time.Second) // until all they have to tell each other has been told
	before := b.sessions()
	cut := time.Now()
	for _, name := range []string{"both-1", "there-1"} {
		b.swallow(b.agents[name], b.agents[name].node)
	}
	for _, name := range []string{"both-1", "back-1"} {
		b.swallow(b.agents[name], b.home)
	}
	missed, left := b.parted(cut, "both-1", "there-1", "back-1")
	for name := range missed {
		t.Logf("%s: the controller noticed after %v, the agent after %v", name, missed[name], left[name])
	}
	// Some attempts are in vain.
	time.Sleep(time.Until(cut.Add(notice + spread)))
	if now := b.sessions(); len(now) != 1 || !now["well-1"].Equal(before["well-1"]) {
		t.Errorf("these hold a session: %v; before the cut: %v", now, before)
	}
	for _, a := range b.agents {
		b.must(a.link.Set(lab.Impairment{Delay: 5 * time.Millisecond}))
	}
	t.Logf("all were back %v after the links were", b.gathered(attempt+spread))
}

// parted waits until some agents are without a session, and tells after what time the
// controller and they knew.
func (b *bench) parted(cut time.Time, names ...string) (missed, left map[string]time.Duration) {
	b.Helper()
	missed, left = make(map[string]time.Duration), make(map[string]time.Duration)
	b.until("both sides have noticed", notice, func() bool {
		sessions := b.sessions()
		for _, name := range names {
			if _, holds := sessions[name]; !holds && missed[name] == 0 {
				missed[name] = time.Since(cut)
			}
			if at := b.gaveUp(b.agents[name], cut); !at.IsZero() {
				left[name] = at.Sub(cut)
			}
		}
		return len(missed) == len(names) && len(left) == len(names)
	})
	return missed, left
}
