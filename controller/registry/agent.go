package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// Why somebody is not allowed.
var (
	ErrBanned     = errors.New("banned")
	ErrLocked     = errors.New("locked")
	ErrRevoked    = errors.New("revoked")
	ErrUnknown    = errors.New("not in the registry")
	ErrSuperseded = errors.New("superseded")
)

// maxEarlier is how many of an agent's earlier keys are remembered: a month of
// them. An older copy is refused as unknown.
const maxEarlier = 64

// Agent is what the registry knows of an agent.
type Agent struct {
	Name       string
	Enrolled   time.Time // for the last time; zero: an own PKI's
	Renewed    time.Time // when its certificate was issued
	Expires    time.Time // when that expires, unless renewed; it can be renewed after that, too
	Generation uint64    // of its certificates, from 1
	Key        identity.KeyHash
	Banned     *Mark // nil: not
	Locked     *Mark // nil: not
}

// Mark says why something was done to somebody.
type Mark struct {
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

// agent is an agent on disk.
type agent struct {
	// Enrolment counts how often the name was enrolled.
	Enrolment  uint64    `json:"enrolment"`
	Enrolled   time.Time `json:"enrolled,omitzero"`
	Renewed    time.Time `json:"renewed,omitzero"`
	Generation uint64    `json:"generation"`
	// Keys are the hashes of this enrolment's keys, newest first; none if the
	// agent has to enrol.
	Keys [][]byte `json:"keys,omitempty"`
	// Confirmed says that the newest key has been used, so that the one before it
	// is not needed any more.
	Confirmed bool `json:"confirmed,omitempty"`
	// Chain is the newest certificate, for those who did not get the answer.
	Chain  [][]byte `json:"chain,omitempty"`
	Banned *Mark    `json:"banned,omitempty"`
	Locked *Mark    `json:"locked,omitempty"`
}

// Enrolment is what somebody gets who enrols or renews.
type Enrolment struct {
	Identity   identity.Identity
	Generation uint64
	Chain      []*x509.Certificate // leaf first
}

// mayEnrol tells whether a host may enrol as this agent; nil is one that nobody knows yet.
func (a *agent) mayEnrol() error {
	if a == nil {
		return nil
	}
	if a.Banned != nil {
		return a.Banned.refuse(ErrBanned, "unban it first")
	}
	if a.Locked != nil {
		return a.Locked.refuse(ErrLocked, "unlock it, and enrol it with a new token")
	}
	return nil
}

func (m *Mark) refuse(why error, next string) error {
	return fmt.Errorf("%w by %s on %s: %s; %s", why, m.Actor, m.Time.UTC().Format(time.RFC3339), m.Reason, next)
}

// issue makes a certificate for a key and notes it, as the next generation.
func (a *agent) issue(r *Registry, id identity.Identity, key *ecdsa.PublicKey, hash identity.KeyHash) (Enrolment, error) {
	chain, err := r.cfg.Issuer.Issue(id, key, 0)
	if err != nil {
		return Enrolment{}, err
	}
	a.Keys = append([][]byte{hash[:]}, a.Keys...)
	a.Keys = a.Keys[:min(len(a.Keys), maxEarlier)]
	a.Chain = nil
	for _, c := range chain {
		a.Chain = append(a.Chain, c.Raw)
	}
	a.Generation++
	a.Confirmed, a.Renewed = false, r.cfg.now().UTC()
	return Enrolment{id, a.Generation, chain}, nil
}

// again returns what was issued last.
func (a *agent) again(id identity.Identity) (Enrolment, error) {
	chain, err := identity.ParseChain(a.Chain)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: %v: %w", ErrDamaged, id, err)
	}
	return Enrolment{id, a.Generation, chain}, nil
}

// age returns how many generations ago the key was the newest; false if it never was.
func (a *agent) age(key identity.KeyHash) (int, bool) {
	for i, k := range a.Keys {
		if bytes.Equal(k, key[:]) {
			return i, true
		}
	}
	return 0, false
}

func (a *agent) public(name string) Agent {
	p := Agent{
		Name: name, Enrolled: a.Enrolled, Renewed: a.Renewed, Generation: a.Generation, Banned: a.Banned, Locked: a.Locked,
	}
	if len(a.Keys) > 0 {
		copy(p.Key[:], a.Keys[0])
	}
	if len(a.Chain) > 0 {
		if c, err := x509.ParseCertificate(a.Chain[0]); err == nil {
			p.Expires = c.NotAfter
		}
	}
	return p
}

// Agents returns agents after the one of that name, in order; limit is 1,000 at most,
// and that if it is 0.
func (r *Registry) Agents(after string, limit int) (agents []Agent, err error) {
	err = r.view(func(t *tx) error {
		return page(t.Bucket(agentsBucket), after, limit, func(name string, a *agent) {
			agents = append(agents, a.public(name))
		})
	})
	return agents, err
}

// Agent returns the agent of that name; ErrNotFound if there is none.
func (r *Registry) Agent(name string) (found Agent, err error) {
	err = r.view(func(t *tx) error {
		a, err := t.agent(name)
		if err == nil && a == nil {
			err = fmt.Errorf("agent %.80q: %w", name, ErrNotFound)
		}
		if err == nil {
			found = a.public(name)
		}
		return err
	})
	return found, err
}
