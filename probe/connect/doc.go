// Package connect is the engine for those who may not open raw sockets, and
// for systems other than Linux: it carries out mode connect, in which the
// kernel makes the handshake as it does for anybody's connect().
//
// New makes an Engine, which needs no privilege and nothing running; Do carries
// out one probe.Spec. Any number of Do may run at once.
//
// # What is measured
//
// On Linux the round trip of an open port is the kernel's own, from the
// TCP_INFO of a connection that has had one sample (stamp tcp_info). TCP_INFO
// has none for a port that is closed: that round trip is the time from our call
// to our learning of the RST (stamp user), some tens of microseconds too long,
// as is every round trip on other systems. HostDelay is known with tcp_info only.
//
// An ICMP error is read from the socket's error queue (IP_RECVERR) with type,
// code and sender. A system that keeps none there does not tell what the network
// answered from a failure of its own, which is then an error, not unreachable;
// nor does it tell an ICMP port unreachable from a RST.
//
// # What a connection cannot do
//
//   - The kernel sends a SYN again after 1 s, whatever it is asked for, and
//     then nobody knows to better than a millisecond when the answered one left.
//     So a connection is given up before that, at MaxWait, and each of
//     Spec.Retries is a connection of its own, from another port. A longer
//     Spec.Timeout is cut short: later answers are seen in mode half-open only.
//   - TCP keeps the port of a closed connection for a minute (TIME_WAIT), so the
//     kernel chooses another for each probe, and there are no flows: Spec.Flows
//     has to be 1. More than some 400 probes a second of one target use the
//     ports up; the probes that get none are errors.
//   - The SYN-ACK's sequence number, window and hop limit stay with the kernel,
//     so a result has neither SynAck nor SYN.
//   - Whether ECN is offered is the host's decision. Interface, DSCP and TTL can
//     be chosen on Linux only.
//
// Connections are closed as soon as they are open, without a word having been said.
package connect
