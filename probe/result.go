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
	// RTT is the round-trip delay (RFC 2681), SYN to answer. It is
	// given for Open and Closed only.
	RTT time.Duration
	// Attempts is the number of SYNs sent, at least 1 unless the probe failed before.
	Attempts int
	Stamp    Stamp
	// Lateness is how long after its appointed time the SYN was handed to the kernel.
	Lateness time.Duration
	// HostDelay is what a measurement in user space would have added: the time
	// from our call to the SYN's stamp, and from the answer's stamp to our reading it.
	HostDelay time.Duration
	// Drops counts packets that the capture lost while this probe was in
	// flight; a Timeout with drops may be an answer that we did not see.
	Drops  int
	SynAck *SynAck // Open only
	ICMP   *ICMP   // Unreachable only
	Err    string  // Error only
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
	TTL           uint8 // or the hop limit, as it arrived
}

// ICMP is an error that a router or the target's host sent about our SYN
// (RFC 792, RFC 4443).
type ICMP struct {
	Type, Code uint8
	From       netip.Addr
}
