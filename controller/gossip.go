package controller

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
)

// announceFor is how long an announcement is believed; it is renewed at half of that.
const announceFor = 24 * time.Hour

// herald has what the fleet gossips with, and signs what is told. See rotate.go for how
// the keys are changed, and follow.go for how agents hear of that.
type herald struct {
	fleet  string
	signer crypto.Signer
	path   string
	log    *slog.Logger
	settle time.Duration // from the start until it is known who is connected
	record func(actor identity.Identity, act, subject, detail string) error
	barred func(agent string) bool // nobody waits for it

	kick    chan struct{} // holds one if the keys are to be changed
	stopped chan struct{} // closed when nobody changes keys any more

	mu        sync.Mutex
	kept      heraldFile
	given     map[string][]byte // the files of now
	version   string            // of them
	changed   chan struct{}     // closed when there are others
	followers map[string]*follower
	asked     uint64        // how often a change was asked for
	served    uint64        // of them, those that are done
	done      chan struct{} // closed when served grows
}

// heraldFile is the form on the disk.
type heraldFile struct {
	Keys gossip.Keys `json:"keys"`
	// Steps are the sets of keys that have to follow, if they are being changed.
	Steps []gossip.Keys `json:"steps,omitempty"`
	// Wanted says that they are to be changed as soon as there are no steps.
	Wanted bool `json:"wanted,omitempty"`
	// Seed is that of the key that signs, where the CA has none.
	Seed []byte `json:"seed,omitempty"`
}

// openHerald reads the keys of the gossip, or makes them.
func openHerald(dataDir string, t *trust, log *slog.Logger) (*herald, error) {
	h := &herald{
		fleet: t.self.Fleet, signer: t.announcer(), path: filepath.Join(dataDir, heraldName), log: log, settle: settleFor,
		kick: make(chan struct{}, 1), stopped: make(chan struct{}),
		changed: make(chan struct{}), done: make(chan struct{}), followers: make(map[string]*follower),
	}
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("keys of the gossip: %w", err)
	}
	return h, nil
}

func (h *herald) open() error {
	kept, err := readHerald(h.path)
	changed := false
	if errors.Is(err, fs.ErrNotExist) {
		kept.Keys.Primary, changed = newGossipKey(), true
		h.settle = 0 // nobody can have others
	} else if err != nil {
		return err
	}
	if h.signer == nil {
		if len(kept.Seed) == 0 {
			kept.Seed, changed = make([]byte, ed25519.SeedSize), true
			_, _ = rand.Read(kept.Seed)
		}
		if len(kept.Seed) != ed25519.SeedSize {
			return fmt.Errorf("%s: the seed has %d bytes; %d are right", h.path, len(kept.Seed), ed25519.SeedSize)
		}
		h.signer = ed25519.NewKeyFromSeed(kept.Seed)
	}
	h.kept = kept
	if changed {
		return h.keep(kept)
	}
	return h.show()
}

// keep stores what is to be from now on, and shows it. h.mu is held, or nobody else is there.
func (h *herald) keep(next heraldFile) error {
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := identity.WriteFile(h.path, append(text, '\n')); err != nil {
		return fmt.Errorf("keys of the gossip: %w", err)
	}
	h.kept = next
	return h.show()
}

// show makes what is kept what agents get.
func (h *herald) show() error {
	text, err := h.secrets().Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	version := hex.EncodeToString(sum[:16])
	if version == h.version {
		return nil
	}
	h.given, h.version = map[string][]byte{gossip.SecretsFile: text}, version
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// secrets are what it takes to take part now.
func (h *herald) secrets() gossip.Secrets {
	return gossip.Secrets{Keys: h.kept.Keys, Trusted: []ed25519.PublicKey{h.signer.Public().(ed25519.PublicKey)}}
}

func newGossipKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the program instead
	return key
}

func readHerald(path string) (kept heraldFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return kept, err
	}
	if err := identity.CheckPrivate(path); err != nil {
		return kept, err
	}
	if err := json.Unmarshal(text, &kept); err != nil {
		return kept, fmt.Errorf("%s: %w; restore it, or remove it: then there are new keys, which agents get as they connect", path, err)
	}
	return kept, nil
}

// files are what agents keep of this.
func (h *herald) files() (map[string][]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.given, nil // which is not changed once it is made
}

// sign announces a peer.
func (h *herald) sign(p gossip.Peer) (gossip.Announcement, error) {
	return gossip.Announce(p, h.fleet, time.Now().Add(announceFor), h.signer)
}

// announce tells the others of this controller, again and again.
func (c *Controller) announce(ctx context.Context) error {
	at, err := c.gossip.Addr(ctx)
	if err != nil {
		return nil // Gossip.Run says why
	}
	self := c.self
	self.Addr = at
	for {
		a, err := c.herald.sign(self)
		if err == nil {
			err = c.gossip.SetAnnouncement(a)
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(announceFor / 2):
		case <-ctx.Done():
			return nil
		}
	}
}

// followGossip shows the fleet who gossip tells of.
func (c *Controller) followGossip(ctx context.Context) error {
	for {
		changed := c.gossip.Changed()
		var agents []fleet.Agent
		for _, p := range c.gossip.Peers() {
			if p.Role == gossip.Agent {
				agents = append(agents, fleet.Agent{Name: p.Name, Labels: p.Labels, Responder: p.Responder})
			}
		}
		c.fleet.SetGossiped(agents)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
