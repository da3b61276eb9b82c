// Package history keeps what the agents found. It owns a folder on disk and
// is the only package of the controller that knows what is in there.
//
// Call Open, then Run in a goroutine of its own, then Append from as many
// sessions as there are; Scan reads back. When Run has returned, Close.
//
// # What it promises
//
// Append returns once the report would survive a power cut, and a report,
// named by (agent, epoch, sequence), is stored once however often it comes:
// the highest sequence stored of every epoch (its mark) is written in the
// transaction that writes the report. A commit that fails acknowledges
// nothing. A flipped bit in a record costs that record only, and one in the
// tree around it no more than the records that cannot be reached any more;
// neither keeps the store from starting.
//
// # What is on disk
//
// Reports are kept as they came, in files of one UTC day each, which are
// deleted whole (bbolt files never shrink): intake-20261120.db. A store writes
// only to files that it made itself; after a restart, or if the file turns
// out to be damaged, the day goes on in intake-20261120-2.db. A file that cannot
// be read at all is renamed to intake-20261120.db.damaged. The file called
// lock keeps a second controller out.
//
// A file has three buckets. "meta" tells the format, after a checksum as below.
// "rows" maps the time the report was stored (nanoseconds since 1970, 8 bytes,
// big endian, strictly increasing over all files) to a record: CRC-32C of the
// key and of all that follows (4 bytes, big endian), length of the agent's name
// (1 byte), the name, the report as protobuf. "marks" maps epoch (8 bytes) and agent to the highest
// sequence (8 bytes), the time it was stored (8 bytes) and a CRC-32C as above.
// A new file starts with the marks that are not older than the retention.
//
// # Clocks
//
// Reports are filed by the controller's clock. If it steps back, stored times
// go on from the latest one in steps of a nanosecond until the clock has caught
// up, and the log says so. A clock that has once been far ahead therefore leaves
// files of days to come; until then, everything is filed there.
package history
