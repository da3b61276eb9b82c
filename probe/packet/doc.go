// Package packet crafts and reads what a TCP handshake consists of: TCP
// segments with their options, the IPv4 and IPv6 headers in front of them, and
// the ICMP errors that may come back instead of an answer. It owns byte order,
// lengths and checksums, and it does no I/O.
//
// To send SYNs, describe one with [LinuxSYN], make a [Template] of it with
// [NewTemplate] once per address to send from, and call [Template.Append] for every
// transmission. Any other segment (SYN-ACK, ACK, FIN, RST) is written by
// [AppendTCP], with an IP header in front by [AppendIP]; [AppendICMP] writes an
// ICMP error about a packet.
//
// To read, keep one [Packet] per reader and call [Packet.Decode] on every
// packet that starts at its IP header. [Segment.DecodeTail] reads back a SYN of
// ours from behind a link header of unknown length.
//
// Decoding never verifies a checksum, because a packet socket shows local
// senders' packets before their checksum is there; [VerifyChecksum] does it
// when asked.
//
// Nothing here allocates, except for errors and strings, or keeps a slice
// longer than the value it was decoded into. Every failure is an [*Error] that
// says which field is wrong, where, and what would be right.
package packet
