package controller

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// text is a log that several write to.
type text struct {
	mu sync.Mutex
	bytes.Buffer
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Buffer.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Buffer.String()
}

// chatter is the part of an agent that gossips, and follows the keys.
type chatter struct {
	*gossip.Gossip
	t       *testing.T
	name    string
	client  synmeshv1.EnrolmentServiceClient
	secrets gossip.Secrets // of the beginning
	log     text
	stop    func() // once
	refused chan error
}

// chat has an agent gossip; with secrets of nobody the controller tells it those of now.
func (r *running) chat(t *testing.T, name string, secrets gossip.Secrets) *chatter {
	t.Helper()
	if r.agents[name] == nil {
		r.agents[name] = apitest.Enrol(t, r.Addr().String(), r.admin, name)
	}
	c := &chatter{
		t: t, name: name, secrets: secrets, refused: make(chan error, 1),
		client: synmeshv1.NewEnrolmentServiceClient(apitest.DialAs(t, r.Addr().String(), r.agents[name])),
	}
	if len(secrets.Trusted) == 0 {
		resp, err := c.client.Announce(t.Context(), &synmeshv1.AnnounceRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if c.secrets, err = gossip.DecodeSecrets(resp.GetFiles()[gossip.SecretsFile]); err != nil {
			t.Fatal(err)
		}
	}
	seed, err := r.gossip.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Gossip, err = gossip.New(gossip.Config{
		Self: gossip.Peer{Name: name, Role: gossip.Agent}, Listen: netip.AddrPortFrom(loopback, 0), Seeds: []string{seed.String()},
		Keys: c.secrets.Keys, Trusted: c.secrets.Trusted, Fleet: r.herald.fleet, Logger: slog.New(slog.NewTextHandler(&c.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { c.refused <- c.follow(ctx) })
	c.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(c.stop)
	c.tell("0")
	return c
}

// tell announces the agent with a label.
func (c *chatter) tell(label string) {
	c.t.Helper()
	at, err := c.Addr(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.client.Announce(c.t.Context(), &synmeshv1.AnnounceRequest{Gossip: at.String(), Labels: map[string]string{"turn": label}})
	if err == nil {
		err = c.SetAnnouncement(resp.GetAnnouncement())
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *chatter) follow(ctx context.Context) error {
	version := ""
	for {
		resp, err := c.client.Follow(ctx, &synmeshv1.FollowRequest{Version: version})
		if err != nil {
			return err
		}
		if files := resp.GetFiles(); len(files) > 0 {
			s, err := gossip.DecodeSecrets(files[gossip.SecretsFile])
			if err == nil {
				err = c.SetKeys(s.Keys)
			}
			if err != nil {
				return err
			}
		}
		version = resp.GetVersion()
	}
}

// hears waits until it knows n of these with the label, and the controller.
func (c *chatter) hears(label string, n int, these ...*chatter) {
	c.t.Helper()
	enough := func(peers []gossip.Peer) bool {
		heard, controllers := 0, 0
		for _, p := range peers {
			switch {
			case p.Role == gossip.Controller:
				controllers++
			case p.Labels["turn"] == label && slices.ContainsFunc(these, func(o *chatter) bool { return o.name == p.Name }):
				heard++
			}
		}
		return heard >= n && controllers == 1
	}
	// Of a handful of members one may miss a piece of news by chance, and waits a minute for the next
	// exchange of all that is known. So it is told again.
	for end := time.Now().Add(3 * patience); ; {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		_, err := c.Wait(ctx, enough)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s knows %+v: %v; %+v\n%s", c.name, c.Peers(), err, c.Stats(), c.log.String())
		}
		for _, o := range these {
			o.tell(label)
		}
	}
}

// leave stops all of them at once.
func leave(all []*chatter) {
	var stopping sync.WaitGroup
	for _, one := range all {
		stopping.Go(one.stop)
	}
	stopping.Wait()
}

func others(all []*chatter, but *chatter) []*chatter {
	return slices.DeleteFunc(slices.Clone(all), func(o *chatter) bool { return o == but })
}

func TestKeysAreChangedWhileGossipGoesOn(t *testing.T) {
	c := start(t, config(t.TempDir()))
	before := c.herald.keys()
	all := []*chatter{}
	defer func() { leave(all) }()
	for _, name := range []string{"a-1", "b-1", "c-1", "d-1", "e-1"} {
		all = append(all, c.chat(t, name, gossip.Secrets{}))
	}
	gone := c.chat(t, "gone-1", gossip.Secrets{})
	gone.stop()
	for _, one := range all {
		one.hears("0", len(all)-1, others(all, one)...)
	}
	// Whoever loses sight of another says so.
	watching, stop := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	for _, one := range all {
		watchers.Go(func() {
			for watching.Err() == nil {
				changed := one.Changed()
				known := one.Peers()
				for _, o := range others(all, one) {
					if !slices.ContainsFunc(known, func(p gossip.Peer) bool { return p.Name == o.name }) {
						t.Errorf("%s has lost sight of %s", one.name, o.name)
					}
				}
				select {
				case <-changed:
				case <-watching.Done():
				}
			}
		})
	}
	client := synmeshv1.NewIdentityServiceClient(c.conn)
	resp, err := client.RotateGossipKeys(t.Context(), &synmeshv1.RotateGossipKeysRequest{})
	if err != nil || resp.GetAgents() != int32(len(all)) {
		t.Fatalf("got %v, %v", resp, err)
	}
	for _, one := range all {
		one.tell("1")
	}
	for _, one := range all {
		one.hears("1", 2, others(all, one)...) // it reads what is said with the key of now
	}
	stop()
	watchers.Wait()
	after := c.herald.keys()
	if bytes.Equal(after.Primary, before.Primary) || len(after.Others) != 0 {
		t.Errorf("the keys are %#v", after)
	}
	for _, one := range all {
		if said := one.log.String(); strings.Contains(strings.ToLower(said), "decrypt") {
			t.Errorf("%s was told what it cannot read:\n%s", one.name, said)
		}
	}
	// Who was away has the keys of before, and is let in.
	back := c.chat(t, "gone-1", gone.secrets)
	back.hears("1", 4, all...)
	all = append(all, back)
}

func TestABanChangesTheKeysAndWaitsForNobodyWhoIsBanned(t *testing.T) {
	c := start(t, config(t.TempDir()))
	before := c.herald.keys()
	loud, fra := c.chat(t, "loud-1", gossip.Secrets{}), c.chat(t, "fra-1", gossip.Secrets{})
	defer leave([]*chatter{loud, fra})
	fra.hears("0", 1, loud)
	client := synmeshv1.NewIdentityServiceClient(c.conn)
	if _, err := client.BanAgent(t.Context(), &synmeshv1.BanAgentRequest{Agent: "loud-1", Reason: "too loud"}); err != nil {
		t.Fatal(err)
	}
	if err := <-loud.refused; status.Code(err) != codes.PermissionDenied {
		t.Errorf("the banned one is told %v", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		now := c.herald.keys()
		if !bytes.Equal(before.Primary, now.Primary) && len(now.Others) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the keys are %#v, with %d to come", now, len(c.herald.kept.Steps))
		}
	}
}

// alone is a herald without a controller.
func alone(t *testing.T, dir string) *herald {
	t.Helper()
	h, err := openHerald(dir, &trust{self: identity.Identity{Fleet: "f"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.record = func(identity.Identity, string, string, string) error { return nil }
	h.barred = func(string) bool { return false }
	return h
}

// live runs the herald with an agent that follows it, until sets of keys have come to the agent, or
// the change is over.
func (h *herald) live(t *testing.T, sets int) (came []gossip.Keys) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	version := ""
	ask := func() bool {
		asked, stop := context.WithTimeout(ctx, 2*settleFor)
		defer stop()
		next, files, err := h.follow(asked, "fra-1", version)
		if version = next; err != nil || len(files) == 0 {
			return false // nothing came for long
		}
		s, err := gossip.DecodeSecrets(files[gossip.SecretsFile])
		if err != nil {
			t.Fatal(err)
		}
		came = append(came, s.Keys)
		return true
	}
	ask() // so that it is known before anything is changed
	running.Go(func() {
		if err := h.run(ctx, func(gossip.Keys) error { return nil }); err != nil {
			t.Error(err)
		}
	})
	for len(came) <= sets && ask() {
	}
	return came
}

// Wherever the controller is stopped, it goes on from there, and leaves out no step.
func TestAChangeOfKeysOutlivesACrash(t *testing.T) {
	for sets := range 4 {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			first := alone(t, dir)
			before := first.keys()
			if _, err := first.Change(identity.Identity{}, ""); err != nil {
				t.Fatal(err)
			}
			came := first.live(t, sets)
			again := alone(t, dir)
			if again.settle == 0 {
				t.Error("it does not wait for who is connected")
			}
			came = append(came, again.live(t, 10)...)
			came = slices.CompactFunc(came, func(a, b gossip.Keys) bool {
				return fmt.Sprintf("%q", a.Primary) == fmt.Sprintf("%q", b.Primary) && len(a.Others) == len(b.Others)
			})
			last := again.keys()
			want := []gossip.Keys{before, {Primary: before.Primary, Others: [][]byte{last.Primary}}, {Primary: last.Primary, Others: [][]byte{before.Primary}}, {Primary: last.Primary}}
			if len(came) != len(want) {
				t.Fatalf("stopped after %d: %d sets came, want %d", sets, len(came), len(want))
			}
			for i := range came {
				if !bytes.Equal(came[i].Primary, want[i].Primary) || !slices.EqualFunc(came[i].Others, want[i].Others, bytes.Equal) {
					t.Errorf("stopped after %d: set %d is another", sets, i)
				}
			}
			if bytes.Equal(last.Primary, before.Primary) || again.kept.Wanted || len(again.kept.Steps) > 0 {
				t.Errorf("stopped after %d: it is not over", sets)
			}
		})
	}
}

// Who asks while keys are being changed may be keeping out somebody who has the new ones.
func TestAChangeThatIsAskedForMeanwhileIsAnotherOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := alone(t, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var used []gossip.Keys
		go func() { ended <- h.run(ctx, func(k gossip.Keys) error { used = append(used, k); return nil }) }()
		// An agent that was here a moment ago holds it up.
		if _, _, err := h.follow(ctx, "fra-1", "old"); err != nil {
			t.Fatal(err)
		}
		first, err := h.Change(identity.Identity{}, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		second, err := h.Change(identity.Identity{}, "")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, wait := range []func(context.Context) (int, error){first, second} {
			if _, err := wait(ctx); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 2*away {
			t.Errorf("who is away holds it up for %v", took)
		}
		cancel()
		if err := <-ended; err != nil || len(used) != 6 || bytes.Equal(used[2].Primary, used[5].Primary) {
			t.Errorf("%d sets were used: %v", len(used), err)
		}
		if _, err := first(context.Background()); err != nil {
			t.Errorf("who asks late: %v", err)
		}
	})
}

func TestKeysThatCannotBeStoredAreNotGivenToAnybody(t *testing.T) {
	dir := t.TempDir()
	h := alone(t, dir)
	before := h.version
	// A folder in the place of the file that is made aside cannot be removed, even by root.
	if err := os.MkdirAll(filepath.Join(dir, "gossip.json.tmp", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Change(identity.Identity{}, ""); err == nil {
		t.Error("it was promised")
	}
	if _, err := h.step(); err == nil || h.version != before {
		t.Errorf("what is not on the disk was given: %v", err)
	}
}
