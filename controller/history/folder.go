package history

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	filePrefix    = "intake-"
	fileSuffix    = ".db"
	tmpSuffix     = ".tmp"
	damagedSuffix = ".damaged"
	dayLayout     = "20060102"
)

// name names a file: a UTC day (in days since 1970), and the how manieth of
// that day it is, from 1.
type name struct {
	day  int64
	part int
}

func (n name) String() string {
	day := n.date()
	if n.part > 1 {
		day += "-" + strconv.Itoa(n.part)
	}
	return filePrefix + day + fileSuffix
}

func (n name) date() string { return time.Unix(n.day*24*60*60, 0).UTC().Format(dayLayout) }

func parseDate(s string) (day int64, ok bool) {
	t, err := time.Parse(dayLayout, s)
	return t.Unix() / (24 * 60 * 60), err == nil
}

func (n name) compare(o name) int {
	return cmp.Or(cmp.Compare(n.day, o.day), cmp.Compare(n.part, o.part))
}

// start returns the first stored time of the day, end that of the next.
func (n name) start() uint64 { return uint64(n.day) * uint64(24*time.Hour) }
func (n name) end() uint64   { return n.start() + uint64(24*time.Hour) }

// dayOf returns the day of a stored time.
func dayOf(at uint64) int64 { return int64(at / uint64(24*time.Hour)) }

// parseName accepts what String returns and nothing else.
func parseName(s string) (name, bool) {
	middle, ok := strings.CutPrefix(s, filePrefix)
	middle, ok2 := strings.CutSuffix(middle, fileSuffix)
	if !ok || !ok2 {
		return name{}, false
	}
	day, part, _ := strings.Cut(middle, "-")
	days, ok := parseDate(day)
	if !ok {
		return name{}, false
	}
	n := name{days, 1}
	if part != "" {
		var err error
		if n.part, err = strconv.Atoi(part); err != nil {
			return name{}, false
		}
	}
	return n, n.String() == s
}

// parseDamagedName returns the name that a file had before it was set aside.
func parseDamagedName(s string) (name, bool) {
	s, damaged := strings.CutSuffix(s, damagedSuffix)
	before, _, ok := strings.Cut(s, fileSuffix)
	n, ours := parseName(before + fileSuffix)
	return n, damaged && ok && ours
}

// tidy removes files that were being made when the process died, and returns
// the names of all others of ours, oldest first.
func (s *Store) tidy() (names []name, archive []parts, err error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("history: %w", err)
	}
	for _, e := range entries {
		if isBackup(e) {
			s.log.Info("history: removing what a backup has left that was not finished", "folder", e.Name())
			if err := os.RemoveAll(s.path(e.Name())); err != nil {
				return nil, nil, fmt.Errorf("history: remove an unfinished backup: %w", err)
			}
		}
		if whole, ok := strings.CutSuffix(e.Name(), tmpSuffix); ok {
			_, intake := parseName(whole)
			if _, archive := parseParts(whole); intake || archive {
				s.log.Info("history: removing a file that was never finished", "file", e.Name())
				if err := os.Remove(s.path(e.Name())); err != nil {
					return nil, nil, fmt.Errorf("history: remove an unfinished file: %w", err)
				}
			}
		}
		if n, ok := parseName(e.Name()); ok {
			names = append(names, n)
		}
		if p, ok := parseParts(e.Name()); ok {
			archive = append(archive, p)
		}
	}
	slices.SortFunc(names, name.compare)
	return names, archive, nil
}

// openOrSetAside opens a file for reading. One that cannot be read gets another name, so
// that the store can go on without it, and nil is returned.
func (s *Store) openOrSetAside(n name) (*file, error) {
	f, err := openFile(s.path(n.String()), n)
	if err == nil {
		return f, nil
	}
	if !isDamage(err) {
		return nil, fmt.Errorf("history: open %s: %w", s.path(n.String()), err)
	}
	s.log.Error("history: a file cannot be read; it is set aside and its reports are missing", "file", n.String(), "error", err)
	s.count.damagedFiles.Add(1)
	return nil, s.setAside(n.String())
}

// setAside gives a damaged file another name, so that nobody reads it.
func (s *Store) setAside(file string) error {
	aside := file + damagedSuffix
	for i := 2; exists(s.path(aside)); i++ {
		aside = file + "." + strconv.Itoa(i) + damagedSuffix
	}
	s.log.Info("history: a damaged file is set aside", "file", file, "renamed", aside)
	if err := os.Rename(s.path(file), s.path(aside)); err != nil {
		return fmt.Errorf("history: set a damaged file aside: %w", err)
	}
	return syncPath(s.cfg.Dir)
}

func (s *Store) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// makeDir makes a folder, and its name durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncPath(filepath.Dir(filepath.Clean(dir)))
}

// syncPath makes durable what is in a file, or which names a folder holds.
func syncPath(path string) error {
	if runtime.GOOS == "windows" {
		return nil // it takes the right to write there
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
