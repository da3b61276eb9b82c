package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// What memberlist may say: more than this in one window, and the rest is only
// counted. Anybody who can send a packet can make it speak.
const (
	logWindow = 10 * time.Second
	logLines  = 20
	logLength = 500
)

// ours are remarks that this package makes itself, once and not at every turn.
var ours = []string{"ignoring alive message for", "Conflicting address for"}

// logWriter hands what memberlist writes, a line a call, to slog. Its debug
// lines are dropped. Its errors become warnings and its warnings become
// information: they are others' faults, or pass, and gossip is only a hint.
type logWriter struct {
	to *slog.Logger

	mu      sync.Mutex
	closed  bool
	began   time.Time // of the window
	said    int       // in the window
	dropped int       // in the window
}

// Write implements io.Writer.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := splitLine(string(bytes.TrimSpace(line)))
	if level < slog.LevelInfo || containsAny(text, ours) || !w.to.Enabled(context.Background(), level) {
		return len(line), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.allow(time.Now()) {
		return len(line), nil
	}
	w.to.Log(context.Background(), level, "gossip: "+text[:min(len(text), logLength)])
	return len(line), nil
}

// allow counts a line, and tells whether the window has room for it.
func (w *logWriter) allow(now time.Time) bool {
	if now.Sub(w.began) >= logWindow {
		if w.dropped > 0 {
			w.to.Warn("gossip: too much was said; some lines were dropped", "lines", w.dropped)
		}
		w.began, w.said, w.dropped = now, 0, 0
	}
	if w.said == logLines {
		w.dropped++
		return false
	}
	w.said++
	return true
}

// close drops all that is written from now on.
func (w *logWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// splitLine parts "[WARN] memberlist: text".
func splitLine(line string) (slog.Level, string) {
	text := line
	level := slog.LevelWarn // "Err: ...", and what is marked as nothing
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if mark, after, ok := strings.Cut(rest, "]"); ok {
			text = strings.TrimSpace(after)
			switch mark {
			case "DEBUG":
				level = slog.LevelDebug
			case "INFO", "WARN":
				level = slog.LevelInfo
			}
		}
	}
	return level, strings.TrimPrefix(text, "memberlist: ")
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}
