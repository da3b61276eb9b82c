package history

import (
	"fmt"
	"os"
	"time"
)

// Usage is what a history takes on its disk.
type Usage struct {
	// Bytes are those of the files, of the intake those that are used: "intake", and of
	// the archive "raw", "minutes" and "hours". What was set aside is "damaged".
	Bytes map[string]int64
	// Waiting is for how long the oldest file of the intake that is complete has not been
	// archived; 0 if there is none.
	Waiting time.Duration
}

// Usage looks at the folder.
func (s *Store) Usage() (Usage, error) {
	u := Usage{Bytes: map[string]int64{"intake": 0, "damaged": 0}}
	for _, word := range tierWords {
		u.Bytes[word] = 0
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return Usage{}, fmt.Errorf("history: %w", err)
	}
	var oldest name // of several files of the intake
	intake := 0
	for _, e := range entries {
		if n, ok := parseName(e.Name()); ok {
			u.Bytes["intake"] += usedSize(s.path(e.Name()))
			if intake++; intake == 1 || n.compare(oldest) < 0 {
				oldest = n
			}
			continue
		}
		info, err := e.Info()
		if err != nil { // it has been deleted
			continue
		}
		if p, ok := parseParts(e.Name()); ok {
			u.Bytes[tierWords[p.tier]] += info.Size()
		} else if _, ok := parseSetAside(e.Name()); ok {
			u.Bytes["damaged"] += info.Size()
		}
	}
	if intake > 1 { // reports go to the newest
		if info, err := os.Stat(s.path(oldest.String())); err == nil {
			u.Waiting = max(0, s.cfg.now().Sub(info.ModTime()))
		}
	}
	return u, nil
}
