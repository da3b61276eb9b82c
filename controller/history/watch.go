package history

import (
	"encoding/binary"
	"math"
	"time"
)

// CursorAt returns the cursor that an entry stored at the time has.
func CursorAt(stored time.Time) Cursor {
	return binary.BigEndian.AppendUint64(nil, nanoseconds(stored))
}

// Stored returns when the entry was stored, UTC; 1970 for the place before all entries.
func (c Cursor) Stored() time.Time {
	if len(c) != keySize {
		return time.Unix(0, 0).UTC()
	}
	return time.Unix(0, int64(min(binary.BigEndian.Uint64(c), math.MaxInt64))).UTC()
}

// Changed returns a channel that is closed after the next commit that stores something. Take it before
// reading what there is.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Latest returns the cursor of the latest entry. All up to there would survive a power cut, and
// whatever is stored from now on has a greater cursor.
func (s *Store) Latest() Cursor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return binary.BigEndian.AppendUint64(nil, s.latest)
}

// reach notes that all up to a stored time is durable, and tells those who wait. The caller holds mu.
func (s *Store) reach(at uint64) {
	s.latest = max(s.latest, at)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Whole tells whether a Scan between two cursors misses nothing, as far as that is known: it
// does if files of that time are older than the retention, or were found damaged.
func (s *Store) Whole(after, to Cursor) bool {
	if len(after) != keySize || len(to) != keySize {
		return false
	}
	first, last := binary.BigEndian.Uint64(after), binary.BigEndian.Uint64(to)
	if (name{day: dayOf(first)}).end() <= s.ago(s.cfg.Retention) {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.files {
		if f.day >= dayOf(first) && f.day <= dayOf(last) && f.unwell() {
			return false
		}
	}
	for _, a := range s.archive {
		if a.tier == raw && a.lastStored > first && a.firstStored <= last && a.unwell() {
			return false
		}
	}
	return true
}

// unwell tells whether something of the file was found damaged.
func (h *health) unwell() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.damaged || len(h.corrupt) > 0
}
