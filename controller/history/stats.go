package history

import "sync/atomic"

// Stats counts what a store has done since it was opened.
type Stats struct {
	// Reports and Results were stored.
	Reports, Results uint64
	// Duplicates are reports that came again.
	Duplicates uint64
	// Commits succeeded; each stores all reports that waited for it.
	Commits uint64
	// FailedCommits are commits that acknowledged nothing.
	FailedCommits uint64
	// CorruptRecords are stored reports that were found damaged, each counted once.
	CorruptRecords uint64
	// DamagedFiles are files of which a part or everything could not be read.
	DamagedFiles uint64
	// HeldBack are commits that waited, because the archive was far behind.
	HeldBack uint64
}

type counters struct {
	reports, results, duplicates, commits, failedCommits, corruptRecords, damagedFiles, heldBack atomic.Uint64
}

// Stats returns the counts.
func (s *Store) Stats() Stats {
	c := &s.count
	return Stats{
		Reports:        c.reports.Load(),
		Results:        c.results.Load(),
		Duplicates:     c.duplicates.Load(),
		Commits:        c.commits.Load(),
		FailedCommits:  c.failedCommits.Load(),
		CorruptRecords: c.corruptRecords.Load(),
		DamagedFiles:   c.damagedFiles.Load(),
		HeldBack:       c.heldBack.Load(),
	}
}

// noted is a file of which damage is remembered.
type noted interface {
	String() string
	noteCorrupt(key string) bool
	noteDamaged() bool
}

// noteCorrupt counts and logs corrupt records, unless they are known.
func (s *Store) noteCorrupt(f noted, keys []string) {
	var found uint64
	for _, k := range keys {
		if f.noteCorrupt(k) {
			found++
		}
	}
	if found > 0 {
		s.count.corruptRecords.Add(found)
		s.log.Error("history: stored records are corrupt; they are left out", "file", f.String(), "records", found)
	}
}

// noteDamaged counts and logs a damaged file, unless it is known.
func (s *Store) noteDamaged(f noted, err error) {
	if f.noteDamaged() {
		s.count.damagedFiles.Add(1)
		s.log.Error("history: a file is damaged; what can be read of it is", "file", f.String(), "error", err)
	}
}
