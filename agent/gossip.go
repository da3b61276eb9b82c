package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// told is what a controller last gave the agent to gossip with, on disk in
// the state folder.
type told struct {
	Secrets      json.RawMessage     `json:"secrets"`
	Announcement gossip.Announcement `json:"announcement,omitempty"`
}

const toldFile = "gossip.json"

func (a *Agent) toldPath() string { return filepath.Join(a.cfg.StateDir, toldFile) }

// readTold returns the secrets of the gossip and our announcement, as far as
// there are any: those of the enrolment, if no session was since. What cannot be
// read is no loss, for a controller gives it to us again.
func (a *Agent) readTold() (s gossip.Secrets, own gossip.Announcement, known bool, err error) {
	var t told
	text, err := os.ReadFile(a.toldPath())
	if err == nil {
		if err = json.Unmarshal(text, &t); err == nil {
			s, err = gossip.DecodeSecrets(t.Secrets)
		}
		if err == nil {
			return s, t.Announcement, true, nil
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		a.cfg.Logger.Warn("what was kept for the gossip cannot be read; a controller is asked for it", "file", a.toldPath(), "reason", err)
	}
	if a.credentials.folder == nil {
		return s, nil, false, nil
	}
	first := a.credentials.folder.State().Files[gossip.SecretsFile]
	if len(first) == 0 {
		return s, nil, false, nil
	}
	s, err = gossip.DecodeSecrets(first)
	return s, nil, err == nil, err
}

// gossiping is the agent's part in the gossip. With the files of an own PKI
// there may be no keys for it until a controller was reached.
func (a *Agent) gossiping(ctx context.Context) error {
	for a.gossip.Load() == nil {
		if err := a.again(ctx, func(ctx context.Context) error { return a.tell(ctx, "") }); err != nil {
			return nil // ctx has ended
		}
		if err := a.newGossip(); err != nil {
			return err
		}
	}
	g := a.gossip.Load()
	ran := make(chan error, 1)
	announcing, stop := context.WithCancel(ctx)
	go func() { ran <- g.Run(ctx); stop() }()
	a.announce(announcing, g)
	return <-ran
}

// announce has a controller announce us, at the beginning of each session and
// before what was said the last time ends. In between it follows the keys.
func (a *Agent) announce(ctx context.Context, g *gossip.Gossip) {
	at, err := g.Addr(ctx)
	if err != nil {
		return // Run says why
	}
	for ctx.Err() == nil {
		if err := a.again(ctx, func(ctx context.Context) error { return a.tell(ctx, at.String()) }); err != nil {
			return // ctx has ended
		}
		end, err := a.told.Announcement.NotAfter()
		if err != nil {
			return // it has been looked at
		}
		// Without the monotonic clock, which stands still while a host sleeps.
		a.follow(ctx, time.Now().Round(0).Add(aboutHalf(time.Until(end))))
	}
}

// again calls until it succeeds, or ctx ends.
func (a *Agent) again(ctx context.Context, call func(context.Context) error) error {
	for failures := 1; ; failures++ {
		err := call(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if failures == 3 {
			a.cfg.Logger.Warn("no announcement for the gossip was to be had; trying again", "reason", err)
		}
		a.dropConn()
		a.pause(ctx, rand.N(min(maxRenewal, firstRenewal<<min(failures-1, 10))))
	}
}

// pause waits; it tells whether a session has begun meanwhile, and has its connection then.
func (a *Agent) pause(ctx context.Context, d time.Duration) (began bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case a.conn = <-a.began:
		return true
	case <-ctx.Done():
	}
	return false
}

// tell says where we gossip, and takes what comes back.
func (a *Agent) tell(ctx context.Context, at string) error {
	call := func(ctx context.Context, client synmeshv1.EnrolmentServiceClient) error {
		resp, err := client.Announce(ctx, &synmeshv1.AnnounceRequest{Gossip: at, Responder: a.hello.GetResponder(), Labels: a.cfg.Labels})
		if err != nil {
			return plain(err)
		}
		t := told{Secrets: resp.GetFiles()[gossip.SecretsFile], Announcement: resp.GetAnnouncement()}
		if at != "" {
			if _, err := t.Announcement.NotAfter(); err != nil {
				return err
			}
		}
		if err := a.take(t); err != nil || at == "" {
			return err
		}
		return a.gossip.Load().SetAnnouncement(t.Announcement)
	}
	if a.conn == nil {
		return a.ask(ctx, call)
	}
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	return call(ctx, synmeshv1.NewEnrolmentServiceClient(a.conn))
}

// take uses what a controller gave us, and keeps it for the next start. A disk that is
// full does not put us out of the gossip.
func (a *Agent) take(t told) error {
	secrets, err := gossip.DecodeSecrets(t.Secrets)
	if err != nil {
		return err
	}
	if g := a.gossip.Load(); g != nil {
		if err := errors.Join(g.SetKeys(secrets.Keys), g.SetTrusted(secrets.Trusted)); err != nil {
			return err
		}
	}
	a.told = t
	text, err := json.Marshal(t)
	if err == nil {
		err = identity.WriteFile(a.toldPath(), text)
	}
	if err != nil {
		a.cfg.Logger.Warn("what is needed to gossip was not kept; after a start a controller is asked for it", "reason", err)
	}
	return nil
}

// aboutHalf is about half of a life, so that a fleet does not come all at once.
func aboutHalf(life time.Duration) time.Duration {
	life = max(life, time.Second)
	return life*2/5 + rand.N(life/5)
}

// newGossip prepares the gossip if its keys are known.
func (a *Agent) newGossip() error {
	secrets, own, known, err := a.readTold()
	if len(a.told.Secrets) > 0 { // which may not be on the disk
		known = true
		secrets, err = gossip.DecodeSecrets(a.told.Secrets)
	}
	if err != nil || !known {
		return err
	}
	current, err := a.credentials.Current()
	if err != nil {
		return err
	}
	g := a.cfg.Gossip
	g.Fleet, g.Keys, g.Trusted, g.Announcement = current.Identity.Fleet, secrets.Keys, secrets.Trusted, own
	made, err := gossip.New(g)
	if err == nil {
		a.gossip.Store(made)
	}
	return err
}
