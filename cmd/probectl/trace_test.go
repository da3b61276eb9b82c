//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

// segment is an object of trace -o jsonl.
type segment struct {
	Direction   string  `json:"direction"`
	Flags       string  `json:"flags"`
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Seq         uint32  `json:"seq"`
	Ack         *uint32 `json:"ack"`
	RelativeSeq *uint32 `json:"relative_seq"`
	RelativeAck *uint32 `json:"relative_ack"`
	Since       float64 `json:"since_syn_seconds"`
	Window      int     `json:"window"`
	WindowBytes int     `json:"window_bytes"`
	ICMP        *struct {
		Type, Code uint8
		From, Says string
	} `json:"icmp"`
}

func segments(t *testing.T, jsonl string) (all []segment) {
	t.Helper()
	for line := range strings.Lines(jsonl) {
		var s segment
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}

// ladder is who said what, in order.
func ladder(all []segment) string {
	var b strings.Builder
	for _, s := range all {
		b.WriteString(s.Direction + " " + s.Flags + "\n")
	}
	return b.String()
}

// linked returns two hosts with a link between them; the second listens on
// port 7000 and closes what the other end has closed.
func linked(t *testing.T, imp lab.Impairment) (from, to *lab.Node, link *lab.Link) {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	from, err = l.Host("from")
	must(t, err)
	to, err = l.Host("to")
	must(t, err)
	link, err = l.Link(from, to, imp)
	must(t, err)
	must(t, l.Route())
	var listener net.Listener
	must(t, to.Do(func() (err error) { listener, err = net.Listen("tcp", ":7000"); return err }))
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				time.Sleep(60 * time.Millisecond) // so that its FIN is not in its ACK
				c.Close()
			}()
		}
	}()
	return from, to, link
}

func TestATraceShowsAConnectionFromItsFirstSYNToItsEnd(t *testing.T) {
	from, to, _ := linked(t, lab.Impairment{Delay: 2 * time.Millisecond})
	for _, addr := range []netip.Addr{to.Addr4(), to.Addr6()} {
		target := netip.AddrPortFrom(addr, 7000).String()
		stdout, stderr, code := runOn(t, from, "trace", target, "-o", "jsonl")
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		all := segments(t, stdout)
		want := "out SYN\nin SYN,ACK\nout ACK\nout FIN,ACK\nin ACK\nin FIN,ACK\nout ACK\n"
		if got := ladder(all); got != want {
			t.Fatalf("%s: the ladder is\n%swant\n%s", target, got, want)
		}
		ours, theirs := all[0].Seq, all[1].Seq
		for i, rel := range [][2]uint32{{0, 0}, {0, 1}, {1, 1}, {1, 1}, {1, 2}, {1, 2}, {2, 2}} {
			s := all[i]
			seqBase, ackBase, source, destination := ours, theirs, all[0].Source, target
			if s.Direction == "in" {
				seqBase, ackBase, source, destination = theirs, ours, target, all[0].Source
			}
			if s.Source != source || s.Destination != destination {
				t.Errorf("segment %d is from %s to %s", i+1, s.Source, s.Destination)
			}
			if s.RelativeSeq == nil || *s.RelativeSeq != rel[0] || s.Seq != seqBase+rel[0] {
				t.Errorf("segment %d: %+v, want the sequence number %d", i+1, s, rel[0])
			}
			if i > 0 && (s.RelativeAck == nil || s.Ack == nil || *s.RelativeAck != rel[1] || *s.Ack != ackBase+rel[1]) {
				t.Errorf("segment %d: %+v, want the acknowledgement %d", i+1, s, rel[1])
			}
			if i > 0 && s.Since < all[i-1].Since {
				t.Errorf("segment %d is at %vs, before the one above it", i+1, s.Since)
			}
		}
		if all[0].Ack != nil {
			t.Errorf("the SYN acknowledges %d", *all[0].Ack)
		}
		if took := all[1].Since; took < 0.004 || took > 0.1 {
			t.Errorf("the SYN,ACK came after %vs, want 4 ms or little more", took)
		}
		if all[0].WindowBytes != all[0].Window || all[2].WindowBytes != all[2].Window<<7 {
			t.Errorf("windows of %d and %d bytes, want none scaled in a SYN, and %d thereafter", all[0].WindowBytes, all[2].WindowBytes, all[2].Window<<7)
		}
	}
}

func TestATraceIsExplained(t *testing.T) {
	from, to, _ := linked(t, lab.Impairment{})
	target := netip.AddrPortFrom(to.Addr4(), 7000).String()
	stdout, stderr, code := runOn(t, from, "trace", target)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	inOrder(t, stdout,
		":61000 here, "+target+" there, on eth0\n", "# ", "TIME/ms", "SEQ", "WINDOW\n",
		" 1    0.000           ────── SYN ──────▶", "mss 1460, sackOK, TS val", " 2 ", "◀──── SYN,ACK ────", " 3 ", "────── ACK ──────▶          1          1    0  502 (64256)\n",
		" 4 ", "──── FIN,ACK ────▶          1          1 ", " 5 ", "◀────── ACK ──────          1          2 ", " 6 ", "◀──── FIN,ACK ────          1          2 ", " 7 ", "────── ACK ──────▶          2          2 ",
		"\n 1 SYN: asks for a connection; our bytes count from ", "\n 2 SYN,ACK after ", "ms: the port is open; its bytes count from ", "\n 3 ACK: completes the handshake",
		"\n 4 FIN: ", "\n 5 ACK of our FIN after ", "\n 6 FIN: the target closes its direction", "\n 7 ACK of their FIN: closed; we closed first, so TIME_WAIT is ours",
		"\nopen: round trip ", "closed in order\n")
	if strings.Contains(stdout, "\x1b") {
		t.Errorf("colours without a terminal: %q", stdout)
	}
	absolute, _, _ := runOn(t, from, "trace", target, "--absolute")
	if strings.Contains(absolute, "▶          1          1 ") {
		t.Errorf("relative numbers in spite of --absolute:\n%s", absolute)
	}
}

// inOrder fails unless text has the parts, one behind the other.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("%q is not where it should be in\n%s", part, text)
		}
		rest = after
	}
}

func TestATraceShowsWhatAnswersInsteadOfASYNACK(t *testing.T) {
	from, to, link := linked(t, lab.Impairment{})
	t.Run("a closed port", func(t *testing.T) {
		stdout, _, code := runOn(t, from, "trace", netip.AddrPortFrom(to.Addr4(), 9).String(), "-o", "jsonl")
		all := segments(t, stdout)
		if code != 0 || ladder(all) != "out SYN\nin RST,ACK\n" || *all[1].RelativeAck != 1 {
			t.Errorf("exit code %d:\n%s", code, stdout)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		must(t, link.Set(lab.Impairment{Loss: 1}))
		stdout, _, code := runOn(t, from, "trace", netip.AddrPortFrom(to.Addr4(), 7000).String(), "-W", "0.2", "--retries", "1")
		if code != 1 || strings.Count(stdout, "▶") != 2 {
			t.Errorf("exit code %d:\n%s", code, stdout)
		}
		inOrder(t, stdout, " 1 SYN: ", " 2 SYN again after 1", "timeout: nothing within 200ms of the last SYN")
	})
	t.Run("an answer to the second SYN", func(t *testing.T) {
		must(t, link.Set(lab.Impairment{Loss: 1}))
		mended := time.AfterFunc(700*time.Millisecond, func() { _ = link.Set(lab.Impairment{}) })
		defer mended.Stop()
		stdout, _, code := runOn(t, from, "trace", netip.AddrPortFrom(to.Addr4(), 7000).String())
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		inOrder(t, stdout, " 2 SYN again after 1", "ms, to SYN 2 of 2: the port is open", "with 2 SYNs, closed in order")
	})
}

func TestATraceShowsWhoCallsTheTargetUnreachable(t *testing.T) {
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	from, err := l.Host("from")
	must(t, err)
	router, err := l.Router("router")
	must(t, err)
	_, err = l.Wire(from, router)
	must(t, err)
	must(t, l.Route())
	stdout, _, code := runOn(t, from, "trace", "10.99.0.1:443", "-o", "jsonl")
	all := segments(t, stdout)
	if code != 1 || len(all) != 2 || all[0].Flags != "SYN" || all[1].Direction != "in" || all[1].ICMP == nil {
		t.Fatalf("exit code %d:\n%s", code, stdout)
	}
	if got := all[1].ICMP; got.Type != 3 || got.From != router.Addr4().String() || all[1].Seq != all[0].Seq {
		t.Errorf("the error is %+v about %d", got, all[1].Seq)
	}
	stdout, _, _ = runOn(t, from, "trace", "10.99.0.1:443")
	inOrder(t, stdout, "◀────── ICMP ─────", "network unreachable (type 3, code 0), from "+router.Addr4().String(),
		" 2 ICMP after ", "unreachable: network unreachable, says "+router.Addr4().String())
}

func TestANameIsResolvedBeforeATrace(t *testing.T) {
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	host, err := l.Host("alone")
	must(t, err)
	stdout, stderr, code := runOn(t, host, "trace", "localhost:9", "-4")
	if code != 0 || !strings.HasPrefix(stdout, "dns localhost: 127.0.0.1 after ") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	stdout, _, code = runOn(t, host, "trace", "127.0.0.1:9", "-o", "json")
	var all []segment
	if err := json.NewDecoder(bytes.NewBufferString(stdout)).Decode(&all); err != nil || code != 0 || ladder(all) != "out SYN\nin RST,ACK\n" {
		t.Errorf("exit code %d, %v:\n%s", code, err, stdout)
	}
	if _, stderr, code := runOn(t, host, "trace", "10.99.0.1:9"); code != 1 || !strings.Contains(stderr, "no route from this host to 10.99.0.1") {
		t.Errorf("without a route: exit code %d, stderr %q", code, stderr)
	}
}
