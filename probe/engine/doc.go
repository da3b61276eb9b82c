// Package engine carries probes out: it paces them, sends their SYNs, matches
// what comes back, and times both ends with the kernel's stamps.
//
// New opens the sockets, Run receives until its context ends, and Do carries
// out one probe.Spec while Run is running. Any number of Do may run at once.
//
// A SYN's initial sequence number is a keyed hash of its addresses and its
// number (RFC 6528), and an answer counts only if addresses, ports and
// acknowledgement all fit; so engines and processes that probe the same target
// never take each other's answers. A SYN-ACK with timestamps has to echo one of the
// probe's own as well, which is a keyed hash of its addresses and ports plus a clock
// (RFC 7323 section 7.1): who forges one without seeing our SYNs has to guess 64 bits,
// and one without timestamps, or a RST, 32.
package engine
