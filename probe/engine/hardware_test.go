//go:build linux

package engine

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

func TestHardwareStampsAreAskedForIfTheyCanBeCompared(t *testing.T) {
	type devices []rawsock.StampingDevice
	lo := rawsock.StampingDevice{Name: "lo", Clock: -1}
	for _, c := range []struct {
		name    string
		devices devices
		reason  string // empty if they are asked for
	}{
		{"no device", nil, "no network device stamps"},
		{"none that offers them", devices{lo, {Name: "veth0", Clock: -1}}, "no network device stamps"},
		{"one that is off", devices{lo, {Name: "eth0", Offered: true}}, "eth0 could stamp"},
		{"one that is on", devices{lo, {Name: "eth0", Offered: true, On: true}}, ""},
		{"one on, one off", devices{{Name: "eth0", Offered: true, On: true}, {Name: "eth1", Clock: 1, Offered: true}}, ""},
		{"two ports of a card", devices{{Name: "eth0", Clock: 1, Offered: true, On: true}, {Name: "eth1", Clock: 1, Offered: true, On: true}}, ""},
		{"two cards", devices{{Name: "eth0", Offered: true, On: true}, lo, {Name: "eth1", Clock: 1, Offered: true, On: true}}, "eth0 and eth1 stamp by different clocks"},
	} {
		err := usable(c.devices)
		if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
	}
}

// errorQueue has the stamps of a SYN, each in a message of its own.
type errorQueue struct {
	syn    []byte
	stamps [][2]int64 // the kernel's or the device's
}

func (q *errorQueue) Stamps(fn func(stamp, hardware int64, packet []byte)) error {
	for _, s := range q.stamps {
		fn(s[0], s[1], q.syn)
	}
	q.stamps = nil
	return nil
}

func TestARoundTripIsTheDevicesIfBothStampsAreItsAndFit(t *testing.T) {
	const (
		kernel = 1_795_201_971_000_000_000
		card   = 5_000 // a clock that was started a moment ago
		us     = int64(time.Microsecond)
	)
	soft := [2]int64{kernel, 0}
	hard := [2]int64{0, card}
	for _, c := range []struct {
		name     string
		sent     [][2]int64
		hardware int64 // of the answer; the kernel's is 100 us after the SYN's
		rtt      time.Duration
		stamp    probe.Stamp
		doubted  uint64
	}{
		{"no hardware", [][2]int64{soft}, 0, 100 * time.Microsecond, probe.StampKernel, 0},
		{"both by hardware", [][2]int64{soft, hard}, card + 80*us, 80 * time.Microsecond, probe.StampHardware, 0},
		{"both by hardware, the device's stamp first", [][2]int64{hard, soft}, card + 80*us, 80 * time.Microsecond, probe.StampHardware, 0},
		{"both by hardware, on two devices", [][2]int64{{kernel - 9, 0}, {0, card - 9}, soft, hard}, card + 80*us, 80 * time.Microsecond, probe.StampHardware, 0},
		{"the SYN only", [][2]int64{soft, hard}, 0, 100 * time.Microsecond, probe.StampKernel, 0},
		{"the answer only", [][2]int64{soft}, card + 80*us, 100 * time.Microsecond, probe.StampKernel, 0},
		{"longer by what clocks differ", [][2]int64{soft, hard}, card + 101*us, 101 * time.Microsecond, probe.StampHardware, 0},
		{"longer by more", [][2]int64{soft, hard}, card + 102*us, 100 * time.Microsecond, probe.StampKernel, 1},
		{"the device's clock was set back", [][2]int64{soft, hard}, card - 1, 100 * time.Microsecond, probe.StampKernel, 1},
		{"no time at all", [][2]int64{soft, hard}, card, 100 * time.Microsecond, probe.StampKernel, 1},
		{"the device's clock was set far ahead", [][2]int64{soft, hard}, kernel, 100 * time.Microsecond, probe.StampKernel, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside(t, oneHost(t), func() {
				r, stats := stampedBy(t, &errorQueue{stamps: c.sent}, rawsock.Frame{Stamp: kernel + 100*us, Hardware: c.hardware})
				if r.Outcome != probe.Open || r.RTT != c.rtt || r.Stamp != c.stamp {
					t.Errorf("%v %s after %v by %v, want %v by %v", r.Outcome, r.Err, r.RTT, r.Stamp, c.rtt, c.stamp)
				}
				if stats.Mistrusted != c.doubted {
					t.Errorf("%d round trips were mistrusted, want %d", stats.Mistrusted, c.doubted)
				}
				if !r.Time.Equal(time.Unix(0, kernel)) {
					t.Errorf("sent at %v, want the kernel's time", r.Time)
				}
			})
		})
	}
}

// stampedBy returns the result of a probe whose SYN and SYN-ACK have these stamps.
func stampedBy(t *testing.T, q *errorQueue, answer rawsock.Frame) (got probe.Result, _ Stats) {
	t.Helper()
	e, err := New(Config{})
	must(t, err)
	defer e.Close()
	e.stamps = []*stamper{{source: q}}
	s := spec(t, 1, "127.0.0.1:443")
	tk := newTask(e, s, nil, func(r *probe.Result) { got = *r })
	to := &target{name: "127.0.0.1:443", remote: netip.MustParseAddrPort("127.0.0.1:443"), plain: netip.MustParseAddrPort("127.0.0.1:443")}
	to.way, err = tk.ways.find(to)
	must(t, err)
	f := &flight{task: tk, target: to, way: to.way, local: 61000}
	e.enter(f)
	f.syns = []transmission{{tsval: 7, called: e.clock()}}
	q.syn = f.way.template.Append(nil, f.local, to.plain, f.isn, 7)
	e.stamps[0].awaited.Store(1)
	answer.Data, err = packet.AppendIP(nil, &packet.Segment{Src: to.plain, Dst: netip.AddrPortFrom(f.way.src, f.local), Ack: f.isn + 1,
		Flags: synAck, TTL: 64, Options: packet.Options{Timestamps: true, TSVal: 1, TSEcr: 7}})
	must(t, err)
	e.handle([]rawsock.Frame{answer}, 0)
	tk.takeReady()
	return got, e.Stats()
}

// No virtual device stamps: the engine says so once, and goes on.
func TestWithoutADeviceThatStampsTheKernelDoes(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.from, func() {
		var log strings.Builder
		e, err := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, err)
		must(t, e.Close())
		if strings.Count(log.String(), "no network device stamps all packets") != 1 {
			t.Errorf("the log says %q", log.String())
		}
	})
}
