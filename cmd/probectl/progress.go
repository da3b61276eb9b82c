package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// progress shows a table that changes, on a terminal, until it is stopped.
type progress struct {
	w    io.Writer
	show func() *table
	quit chan struct{}
	done sync.WaitGroup
	high int // lines on the screen
}

func startProgress(w io.Writer, show func() *table) *progress {
	p := &progress{w: w, show: show, quit: make(chan struct{})}
	p.done.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.draw(p.show().String())
			case <-p.quit:
				p.draw("")
				return
			}
		}
	})
	return p
}

// stop takes the display away. A nil progress has nothing to stop.
func (p *progress) stop() {
	if p != nil {
		close(p.quit)
		p.done.Wait()
	}
}

// draw puts the text in the place of the last one. A line that wrapped, or
// scrolled out, could not be taken back: it is cut.
func (p *progress) draw(text string) {
	width, height := 80, 24
	if f, ok := p.w.(*os.File); ok {
		if w, h, err := term.GetSize(f.Fd()); err == nil && w > 0 && h > 1 {
			width, height = w, h
		}
	}
	var b strings.Builder
	if p.high > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", p.high)
	}
	p.high = 0
	for line := range strings.Lines(text) {
		if p.high == height-1 {
			break
		}
		b.WriteString(ansi.Truncate(strings.TrimRight(line, "\n"), width-1, "…") + "\n")
		p.high++
	}
	// A display that fails does not fail the measurement: the results come all the same.
	_ = print(p.w, rendered(b.String()))
}

// rendered is text that is laid out already.
type rendered string

// String implements fmt.Stringer.
func (r rendered) String() string { return string(r) }
