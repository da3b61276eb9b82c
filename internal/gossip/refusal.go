package gossip

import (
	"fmt"
	"maps"

	"github.com/hashicorp/memberlist"
)

// maxRemarked bounds what is remembered of faults that were logged.
const maxRemarked = 256

// Reason says why something that was told of a member was ignored. It is one
// word, fit for a metric's label.
type Reason string

// The reasons.
const (
	// Unannounced is a member that has no announcement yet: it may listen.
	Unannounced Reason = "unannounced"
	// Unreadable is an announcement that is not in the form of one.
	Unreadable Reason = "unreadable"
	// ForeignName is an announcement that was issued to another name.
	ForeignName Reason = "foreign_name"
	// ForeignAddress is an announcement that was issued to another address, or
	// a member at an address that is no host's.
	ForeignAddress Reason = "foreign_address"
	// Untimely is an announcement that has ended or is yet to be issued.
	Untimely Reason = "untimely"
	// UnknownKey is an announcement signed by a key that is not trusted.
	UnknownKey Reason = "unknown_key"
	// BadSignature is a forged announcement, or one made for another fleet.
	BadSignature Reason = "bad_signature"
	// Superseded is an announcement older than one that is known. News that
	// overtake each other look the same, so a few of these mean nothing.
	Superseded Reason = "superseded"
)

// refusal is why something was ignored.
type refusal struct {
	reason Reason
	err    error
}

func refuse(reason Reason, err error) *refusal { return &refusal{reason, err} }

// usual tells whether this happens in every fleet, and is not worth a line.
func (r *refusal) usual() bool { return r.reason == Unannounced || r.reason == Superseded }

// Stats counts what gossip refused to believe. The counts never fall.
type Stats struct {
	// Ignored counts what was told of members and not believed. A reason that
	// has not been met is not in it.
	Ignored map[Reason]uint64
	// Conflicts counts what was told by a second member under a name in use,
	// though its announcement was right.
	Conflicts uint64
}

// clone returns a copy that shares nothing with s.
func (s Stats) clone() Stats {
	s.Ignored = maps.Clone(s.Ignored)
	return s
}

// ignore counts and logs what is not believed. f.mu is held.
func (f *fleet) ignore(n *memberlist.Node, r *refusal) {
	f.stats.Ignored[r.reason]++
	if !r.usual() {
		f.remark("gossip: a member is ignored", n, r.err)
	}
}

// conflict counts and logs a name that two members have. f.mu is held.
func (f *fleet) conflict(existing, other *memberlist.Node) {
	f.stats.Conflicts++
	f.remark("gossip: two members have one name; the second is ignored", other,
		fmt.Errorf("the first is at %s", existing.Address()))
}

// remark logs a fault once for each member: gossip repeats what it hears.
func (f *fleet) remark(what string, n *memberlist.Node, err error) {
	name, addr := truncate(n.Name), truncate(n.Address())
	key := what + name + addr + err.Error()
	if f.closed || f.remarked[key] {
		return
	}
	if len(f.remarked) >= maxRemarked {
		clear(f.remarked)
	}
	f.remarked[key] = true
	f.log.Warn(what, "member", name, "address", addr, "err", err)
}

func truncate(s string) string { return s[:min(len(s), 80)] }
