package probe

import (
	"net/netip"
	"time"
)

// Result is what one probe found, and how far that can be trusted.
type Result struct {
	// Time is when the SYN left, by the wall clock of the agent.
	Time time.Time
	// Agent is the name of the agent, or of the host, that probed.
	Agent string
	// Source names what asked for the probe: "runs/…", "measurements/…", or
	// nothing when a host probed by itself.
	Source string
	// Target is the name the target was asked for by.
	Target string
	// Remote is the address that was probed; invalid if the name did not resolve.
	Remote    netip.AddrPort
	LocalPort uint16
	Outcome   Outcome
	// RTT is the round-trip delay (RFC 2681), SYN to answer. It is given only
	// where Timed says so.
	RTT time.Duration
	// Attempts is the number of SYNs sent, at least 1 unless the probe failed before.
	Attempts int
	// Retry tells more of a probe that took several SYNs; nil if it took one.
	Retry *Retry
	Stamp Stamp
	// Lateness is how long after its appointed time the SYN was handed to the kernel.
	Lateness time.Duration
	// HostDelay is what a measurement in user space would have added: the time
	// from our call to the SYN's stamp, and from the answer's stamp to our reading it.
	HostDelay time.Duration
	// NeighbourLookup says that the kernel did not know the link-layer address of
	// the first hop, and asked for it (RFC 826, RFC 4861) while the SYN waited. That time is in
	// HostDelay and not in RTT. The engine of raw sockets sends a warm-up before a target's first
	// probe, so it is said only where that was not answered in time, or the
	// address was forgotten later; and not in a sweep of many targets.
	NeighbourLookup bool
	// Drops counts packets that the capture lost while this probe was in
	// flight. An answer may be among them, so that a probe without one is an Error then.
	Drops  int
	SYN    uint32  // our initial sequence number
	SynAck *SynAck // Open only
	Close  *Close  // Open in mode Full only
	ICMP   *ICMP   // Unreachable only
	Err    string  // Error only
}

// Timed tells whether a round trip was measured: the target answered, and it is
// known which SYN it answered, at once (Karn's rule, RFC 6298 section 3).
func (r *Result) Timed() bool {
	return r.Outcome.Answered() && r.Retry.timed()
}

// SynAck is what the target's SYN-ACK said (RFC 9293 section 3.1, RFC 7323, RFC 2018).
type SynAck struct {
	Seq    uint32
	Window uint16 // as sent; a SYN-ACK's window is never scaled
	MSS    uint16 // bytes; 0 if the option was absent
	// WindowScale is the shift count, or -1 if the option was absent.
	WindowScale   int8
	SACKPermitted bool
	Timestamps    bool
	ECN           bool  // the target agreed to it (RFC 3168 section 6.1.1)
	TTL           uint8 // or the hop limit, as it arrived
}

// Lost says what of a handshake was lost on the way, as far as the evidence tells.
type Lost uint8

// What may have been lost.
const (
	LostUnknown Lost = iota // the answer does not tell which SYN it answers
	LostSYN                 // the target never saw the SYNs before the one it answered
	LostSYNACK              // the target saw an earlier SYN than the last, and its answer to that was lost or late
)

var lostWords = words[Lost]{"loss", []string{"unknown", "syn", "syn_ack"}, true}

// String returns the word for it, as it stands in JSON and tables.
func (l Lost) String() string { return lostWords.name(l) }

// MarshalText implements encoding.TextMarshaler.
func (l Lost) MarshalText() ([]byte, error) { return lostWords.marshal(l) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Lost) UnmarshalText(b []byte) (err error) { *l, err = lostWords.parse(b); return err }

// Retry is what is known of a probe that was answered after several SYNs. The
// result has an RTT only if the answer is to the last of them for certain.
type Retry struct {
	// Answered is the SYN that the answer names by its timestamp echo (RFC 7323
	// section 3), or in mode Connect by its connection, counted from 1; 0 if it names none.
	Answered int
	Lost     Lost
	// Waited is the time from the first SYN to the answer: what a user waits.
	Waited time.Duration
}

// timed tells whether the answer is to one SYN for certain, and came at once.
func (t *Retry) timed() bool { return t == nil || t.Answered > 0 && t.Lost != LostSYNACK }

// Ending says how a connection was closed.
type Ending uint8

// The endings.
const (
	Orderly  Ending = iota + 1 // FIN, ACK, FIN, ACK (RFC 9293 section 3.6)
	Reset                      // the target sent a RST
	Unclosed                   // the target did not do its part in time, and was sent a RST
)

var endingWords = words[Ending]{"ending", []string{"", "orderly", "reset", "unclosed"}, false}

// String returns the word for it, as it stands in JSON and tables.
func (e Ending) String() string { return endingWords.name(e) }

// MarshalText implements encoding.TextMarshaler.
func (e Ending) MarshalText() ([]byte, error) { return endingWords.marshal(e) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Ending) UnmarshalText(b []byte) (err error) { *e, err = endingWords.parse(b); return err }

// Close is how a full handshake's connection was closed.
type Close struct {
	Ending Ending
	// Ack is from our FIN to its acknowledgement, Fin from our FIN to the
	// target's; 0 where there was none, or it came first.
	Ack, Fin time.Duration
}

// ICMP is an error that a router or the target's host sent about our SYN
// (RFC 792, RFC 4443).
type ICMP struct {
	Type, Code uint8
	From       netip.Addr
}
