// Package engine carries probes out: it paces them, sends their SYNs, matches
// what comes back, and times both ends with the kernel's stamps.
//
// New opens the sockets, Run receives until its context ends, and Do carries
// out one probe.Spec while Run is running. Any number of Do may run at once.
//
// A SYN's initial sequence number is a keyed hash of its addresses and its
// number (RFC 6528), and an answer counts only if addresses, ports and
// acknowledgement all fit; so engines and processes that probe the same target
// never take each other's answers.
package engine
