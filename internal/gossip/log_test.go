package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// firstWarning closes seen at the first warning.
type firstWarning struct {
	slog.Handler
	once sync.Once
	seen chan struct{}
}

func (*firstWarning) Enabled(context.Context, slog.Level) bool { return true }

func (h *firstWarning) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.once.Do(func() { close(h.seen) })
	}
	return nil
}

func newText(level slog.Level) (*bytes.Buffer, *slog.Logger) {
	var b bytes.Buffer
	return &b, slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

func TestLinesOfMemberlistGetALevel(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"an error is a warning", "[ERR] memberlist: Decrypt packet failed", `level=WARN msg="gossip: Decrypt packet failed"`},
		{"an error by its other name", "[ERROR] memberlist: Failed", `level=WARN msg="gossip: Failed"`},
		{"an error without a mark", "Err: Could not set the deadline", `level=WARN msg="gossip: Err: Could not set the deadline"`},
		{"a warning is information", "[WARN] memberlist: Refuting", `level=INFO msg="gossip: Refuting"`},
		{"information stays", "[INFO] memberlist: Marking b as failed", `level=INFO msg="gossip: Marking b as failed"`},
		{"noise is dropped", "[DEBUG] memberlist: Stream connection", ""},
		{"what we say ourselves is dropped", "[WARN] memberlist: ignoring alive message for 'b': bad", ""},
		{"what we say ourselves of conflicts is dropped", "[ERR] memberlist: Conflicting address for b. Mine: x", ""},
		{"control characters are quoted", "[WARN] memberlist: a\x1b[2J\nb", `level=INFO msg="gossip: a\x1b[2J\nb"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, logger := newText(slog.LevelDebug)
			w := &logWriter{to: logger}
			if _, err := fmt.Fprintln(w, tt.line); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestTooManyLinesAreCountedOnly(t *testing.T) {
	out, logger := newText(slog.LevelInfo)
	w := &logWriter{to: logger}
	for range 3 * logLines {
		fmt.Fprintln(w, "[ERR] memberlist: Decrypt packet failed")
	}
	if got := strings.Count(out.String(), "Decrypt"); got != logLines {
		t.Errorf("%d lines were said, want %d", got, logLines)
	}
	w.began = w.began.Add(-logWindow)
	fmt.Fprintln(w, "[ERR] memberlist: Decrypt packet failed")
	if want := fmt.Sprintf("some lines were dropped\" lines=%d", 2*logLines); !strings.Contains(out.String(), want) {
		t.Errorf("the dropped lines are not told of:\n%s", out)
	}
}

func TestClosedLogSaysNothing(t *testing.T) {
	out, logger := newText(slog.LevelInfo)
	w := &logWriter{to: logger, began: time.Now()}
	w.close()
	fmt.Fprintln(w, "[ERR] memberlist: Failed")
	if out.Len() > 0 {
		t.Error(out)
	}
}
