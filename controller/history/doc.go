// Package history keeps what the agents found. It owns a folder on disk and
// is the only package of the controller that knows what is in there.
//
// Call Open, then Run in a goroutine of its own, then Append from as many
// sessions as there are; Scan reads results back, and Query sums them up. When
// Run has returned, Close. Backup may be called meanwhile; Check needs no Store.
//
// # What it promises
//
// Append returns once the report would survive a power cut, and a report,
// named by (agent, epoch, sequence), is stored once however often it comes:
// the highest sequence stored of every epoch (its mark) is written in the
// transaction that writes the report. A commit that fails acknowledges
// nothing. A flipped bit in a record costs that record only, and one in the
// tree around it no more than the records that cannot be reached any more;
// neither keeps the store from starting. One in the page that says where the last
// commit is, is flipped back; if more of that is wrong, the file counts as damaged, for
// what was committed last may be missing.
//
// # What is on disk
//
// What arrives is in the order of agents: each reports now and then about all
// of its series. What is asked for is in the order of series: this pair, that
// month. So there are two stages, and files that are deleted whole (bbolt files never
// shrink). The intake has reports as they came, in a file for some minutes each, or two gigabytes, and
// a goroutine of Run makes files of the archive from each that is finished.
// Every result is in the one or the other, and whoever reads looks at both. The
// file called lock keeps a second controller out.
//
// # The intake
//
// Its files are intake-20261120.db and, of the same UTC day, intake-20261120-2.db and so
// on: the parts of the day. A store writes only to files that it made itself; after a
// restart, or if the file turns out to be damaged, the day goes on in the next part. A file that cannot
// be read at all is renamed to intake-20261120.db.damaged.
//
// A file has three buckets. "meta" tells the format, after a checksum as below.
// "rows" maps the time the report was stored (nanoseconds since 1970, 8 bytes,
// big endian, strictly increasing over all files) to a record: CRC-32C of the
// key and of all that follows (4 bytes, big endian), length of the agent's name
// (1 byte), the name, the report as protobuf. "marks" maps epoch (8 bytes) and agent to the highest
// sequence (8 bytes), the time it was stored (8 bytes) and a CRC-32C as above.
// A new file starts with the marks that are not older than the retention. The
// newest file is never archived: it has the marks.
//
// # The archive
//
// It has three tiers, each with a retention of its own: raw-20261120-3-3.db has the results of
// part 3 of the day, minutes-20261120-3-3.db and hours-20261120-3-3.db what sums them up. When there are twelve
// neighbours of the latter they are merged, to minutes-20261120-1-12.db, and the hours of a
// day that is over become one file.
//
// A part's three files are made aside and synced; then the hours get their name, the
// minutes, and after the folder was synced the results. From then on the intake's file does not
// count, and is deleted. So after a crash the file of the results tells: if it is
// there, the intake's file is removed, otherwise the two others are. Of files of which
// one covers another, the one that covers less is removed.
//
// Values begin with a CRC-32C of the key and the rest. Keys of series have the agent's
// name behind its length (1 byte), the source behind its length (2 bytes), the
// target, and 8 bytes more. The buckets:
//
//   - "meta": the format, and under "span" of what times there are results (agents' clocks, 2 times 8
//     bytes) and when the reports were stored (ours, 2 times 8 bytes).
//   - "series", of results: a block (package block) for each series; the 8 bytes are when the first
//     report of the same chunk was stored. Of summaries: those of a quarter of an hour, or
//     of a day (package rollup); the 8 bytes are its number, and 8 others keep apart what is of several parts.
//   - "reports": for each agent and chunk, a table of the reports: when they were stored,
//     their epochs, sequences, counts of results produced and of rows, and the ends of runs. Blocks refer to
//     its rows, so that Scan can put together again what came in one report.
//   - "odd": reports that cannot be taken apart, because something in them is out of bounds, as records
//     of the intake. Scan has them, Query does not.
//
// The archive keeps round trips in nanoseconds, and times, latenesses and host delays in microseconds.
//
// # Clocks
//
// Reports are filed by the controller's clock. If it steps back, stored times
// go on from the latest one in steps of a nanosecond until the clock has caught
// up, and the log says so. A clock that has once been far ahead therefore leaves
// files of days to come; until then, everything is filed there. Query goes by
// the times of results, which are by the agents' clocks.
package history
