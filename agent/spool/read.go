package spool

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
)

// errLater says that a segment cannot be opened now, for want of file descriptors, say.
var errLater = errors.New("try again")

// read returns the message with the next report at or behind a position that can
// be read and was not sent before, and what is lost in front of it; or none, and
// what is lost up to the end. The error is errLater.
func (s *Spool) read(g *segment, p position, size int64, end, sent uint64) (f flight, m []byte, after position, err error) {
	f.segment = g
	after = p
	reason := Corrupt
	file, err := s.openFrom(g, p.at)
	if err != nil {
		s.log.Error("a segment of the spool cannot be read", "segment", g.String(), "reason", err)
		if !hopeless(err) {
			return f, nil, p, errLater
		}
		f.lost[Corrupt] = end - min(end, p.number)
		after.at = size
		return f, nil, after, nil
	}
	defer file.Close()
	for {
		h, at, err := nextHeader(file, after.at, size)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.log.Error("a segment of the spool cannot be read", "segment", g.String(), "reason", err)
			}
			f.lost[reason] = end - min(end, after.number)
			after.at = size
			return f, nil, after, nil
		}
		after.at = at + h.size()
		if h.kind != ofReport || h.number < after.number || h.end() > end {
			continue
		}
		if h.sequence <= sent { // it could not be passed over before
			f.passed += h.end() - after.number
			after.number = h.end()
			continue
		}
		payload, err := readPayload(file, h, at, size)
		if err != nil {
			s.log.Error("a report of the spool cannot be read", "segment", g.String(), "at", at, "results", h.results, "reason", err)
			if errors.Is(err, errTorn) {
				reason = Crash
			}
			continue
		}
		f.lost[reason] = h.number - after.number
		f.sequence, f.size, f.results = h.sequence, h.size(), uint64(h.results)
		after.number = h.end()
		return f, reportMessage(payload), after, nil
	}
}

// hopeless tells whether a file cannot be read now or later. What else there is
// passes, or somebody can see to it: rights, file descriptors, memory.
func hopeless(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EIO)
}

// openFrom opens a segment for reading from an offset on. What was written last,
// and is on the disk, is still at hand as a rule.
func (s *Spool) openFrom(g *segment, at int64) (segmentReader, error) {
	s.mu.Lock()
	t := s.tail
	s.mu.Unlock()
	if t.segment == g && at >= t.from {
		return t, nil
	}
	return s.openSegment(g)
}

type segmentReader interface {
	io.ReaderAt
	io.Closer
}

// tail is the end of a segment, as it was written.
type tail struct {
	segment *segment
	from    int64
	content []byte
}

// ReadAt implements io.ReaderAt, by the segment's offsets.
func (t tail) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(t.content).ReadAt(b, at-t.from)
}

// Close implements io.Closer.
func (t tail) Close() error { return nil }

// openSegment opens a segment for reading, whichever its name is just now.
func (s *Spool) openSegment(g *segment) (*os.File, error) {
	f, err := os.Open(s.folder.name(g.id, true))
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(s.folder.name(g.id, false))
	}
	return f, err
}

// find returns where in a segment the first report behind the sequence stands.
// If it cannot be read, that is where the last one before it ends, and reading
// on will tell what is lost.
func (s *Spool) find(g *segment, sequence uint64) (at int64, number uint64) {
	number = g.start
	content, err := s.content(g)
	if err != nil {
		s.log.Error("a segment of the spool cannot be read", "segment", g.id, "reason", err)
		return 0, number
	}
	r, size := bytes.NewReader(content), int64(len(content))
	var from int64
	for {
		h, at, err := nextHeader(r, from, size)
		if err != nil {
			return from, number
		}
		if h.kind == ofReport && h.sequence == sequence+1 {
			return at, h.number
		}
		if h.kind == ofReport && h.sequence > sequence {
			return from, number
		}
		number, from = h.end(), at+h.size()
	}
}

// content reads a segment, as far as it is durable.
func (s *Spool) content(g *segment) ([]byte, error) {
	f, err := s.openSegment(g)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, g.size)
	_, err = f.ReadAt(b, 0)
	return b, err
}
