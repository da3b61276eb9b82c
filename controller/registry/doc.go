// Package registry keeps who belongs to the fleet: tokens, agents, people, and
// the audit log of every change; the measurements that people have set; and which
// agents were there last, for a controller that starts again. It owns registry.db. Call Open; when nobody uses it any more, Close.
//
// Allowed is asked for every message, and answers from memory. Changed tells
// when its answers may have changed.
//
// # What it promises
//
// A change is on the disk, and in the audit log, when the method returns, or
// neither is. A token makes one certificate: what is issued is recorded in the
// transaction that uses the token up, and if the answer was lost, the same key
// gets the same certificate again. The same holds for renewals: each generation
// of an agent's certificates has one key. Somebody else who asks from there
// has a copy of the agent's state folder; which of the two is the copy nobody
// can tell, so the agent is locked.
//
// # What is on disk
//
// A bbolt file with the buckets "meta" (format, head of the audit log, revision
// of the measurements), "tokens" (SHA-256 of the secret -> JSON), "agents" and
// "users" (name -> JSON), "measurements" (name -> protobuf), "seen" (name -> JSON; it is made with the first), and
// "audit" (number, 8 bytes, big endian -> JSON). Every entry of
// the audit log holds the SHA-256 of the one before it, number included, and
// "meta" holds that of the last: an entry that was changed, taken out or cut off
// is found. Somebody who can write to the file can make all of it anew; so note
// the head elsewhere now and then.
package registry
