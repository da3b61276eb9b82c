//go:build linux

package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

// The windows mark what a storm sends, so that one that was taken for an answer
// shows: one that claims to echo our timestamp, and one that has none to echo.
const (
	echoWindow = 666
	muteWindow = 667
)

// byChance is how many without a timestamp may guess a number of 32 bits. A
// million of five that rain is for the ports and addresses of one of some hundred
// probes that are under way: one of thirty storms hits once. Of those
// that have to guess the timestamp as well, none does in a thousand million storms.
const byChance = 1

func TestForgedAnswersAreNeverTaken(t *testing.T) {
	weather(t, 300_000)
}

// The figure that is promised; it takes about a minute of both cores.
func TestTenMillionForgedAnswersAreNeverTaken(t *testing.T) {
	if os.Getenv("SYNMESH_TORTURE") != "1" {
		t.Skip("10 million packets take a while; set SYNMESH_TORTURE=1 to have them sent")
	}
	weather(t, 10_000_000)
}

// weather has forged SYN-ACKs rain on an engine that is at work, and compares
// with as many that are for ports nobody probes from: what that costs is the load's doing.
func weather(t *testing.T, total uint64) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	silence(t, n, 444) // so that probes are under way at every time
	calm := rain(t, n, total, 50000)
	calm.log(t, "to ports that nobody probes from")
	if calm.stats.Strays != 0 {
		t.Errorf("%d packets to other ports were looked at", calm.stats.Strays)
	}
	storm := rain(t, n, total, DefaultPorts.First)
	storm.log(t, "to the ports that probes leave from")
	if storm.echoes > 0 || calm.echoes > 0 {
		t.Errorf("%d forged SYN-ACKs with a timestamp were taken for answers", storm.echoes+calm.echoes)
	}
	if storm.mutes > byChance || calm.mutes > 0 {
		t.Errorf("%d forged SYN-ACKs without a timestamp were taken for answers", storm.mutes+calm.mutes)
	}
	if storm.results != storm.probes || calm.results != calm.probes {
		t.Errorf("%d of %d results, without the storm %d of %d", storm.results, storm.probes, calm.results, calm.probes)
	}
	if storm.wrong > 0 || calm.wrong > 0 {
		t.Errorf("%d results are wrong, without the storm %d", storm.wrong, calm.wrong)
	}
	if storm.unexplained > calm.unexplained {
		t.Errorf("%d answers were lost without a drop that explains it, without the storm %d", storm.unexplained, calm.unexplained)
	}
	counted, dropped := storm.stats.Strays+storm.stats.Duplicates, storm.stats.Drops
	if counted > storm.sent || counted+dropped+storm.overflow+uint64(storm.mutes) < storm.sent {
		t.Errorf("of %d forged packets %d were counted, %d had no room in the capture and %d did not get that far", storm.sent, counted, dropped, storm.overflow)
	}
	if storm.sent < total || counted == 0 {
		t.Errorf("%d forged packets were sent and %d counted; the test proves nothing", storm.sent, counted)
	}
}

// forecast is what became of the probes during a rain.
type forecast struct {
	sent        uint64 // forged packets
	overflow    uint64 // of the kernel's queue in front of every socket
	took        time.Duration
	probes      int
	results     int
	open        int
	echoes      int // forged, with a timestamp to echo
	mutes       int // forged, without
	wrong       int // neither what the target does, nor a timeout, nor an error
	timeouts    int // of the target that answers
	errors      int
	unexplained int // timeouts and errors of it, without drops
	rtts        []time.Duration
	stats       Stats
}

func (f *forecast) log(t *testing.T, what string) {
	slices.Sort(f.rtts)
	quantile := func(q int) time.Duration { return f.rtts[(len(f.rtts)-1)*q/100] }
	t.Logf("%d packets %s in %v: %d results of %d probes, %d open, %d forged, %d timeouts and %d errors (%d unexplained), round trips p50 %v p99 %v max %v, overflow %d, %+v",
		f.sent, what, f.took.Round(time.Millisecond), f.results, f.probes, f.open, f.echoes+f.mutes, f.timeouts, f.errors, f.unexplained,
		quantile(50), quantile(99), quantile(100), f.overflow, f.stats)
}

// rain runs rounds of probes until so many packets have been sent to ports from first on.
func rain(t *testing.T, n network, total uint64, first uint16) *forecast {
	t.Helper()
	f := &forecast{}
	drops := softnetDrops(t)
	storm := brew(t, n, first)
	inside(t, n.from, func() {
		e := start(t, Config{})
		s := spec(t, 100, n.to.Addr4().String()+":443", "["+n.to.Addr6().String()+"]:443", n.to.Addr4().String()+":444", "["+n.to.Addr6().String()+"]:444")
		began := time.Now()
		storm.begin(total)
		for storm.sent.Load() < total {
			f.probes += s.Probes()
			for _, r := range do(t, e, s) {
				f.add(&r)
			}
		}
		<-storm.over
		f.took, f.sent = time.Since(began), storm.sent.Load()
		eventually(t, func() string { // the last packets may not have been read
			before := e.Stats()
			time.Sleep(50 * time.Millisecond)
			if f.stats = e.Stats(); f.stats != before {
				return "packets still come in"
			}
			return ""
		})
	})
	f.overflow = softnetDrops(t) - drops
	return f
}

func (f *forecast) add(r *probe.Result) {
	f.results++
	answers := r.Remote.Port() == 443
	switch {
	case r.Outcome == probe.Open && r.SynAck.Window == echoWindow:
		f.echoes++
	case r.Outcome == probe.Open && r.SynAck.Window == muteWindow:
		f.mutes++
	case r.Outcome == probe.Open && answers:
		f.open++
		f.rtts = append(f.rtts, r.RTT)
	case r.Outcome == probe.Timeout && !answers:
	case r.Outcome == probe.Timeout:
		f.timeouts++
		f.explain(r)
	case r.Outcome == probe.Error:
		f.errors++
		if answers {
			f.explain(r)
		}
	default:
		f.wrong++
	}
}

func (f *forecast) explain(r *probe.Result) {
	if r.Drops == 0 {
		f.unexplained++
	}
}

// softnetDrops counts the packets of the whole machine that had no room in the
// queue between a device and everything that listens.
func softnetDrops(t *testing.T) (sum uint64) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/softnet_stat")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		var processed, dropped uint64
		_, err := fmt.Sscanf(line, "%x %x", &processed, &dropped)
		must(t, err)
		sum += dropped
	}
	return sum
}

// storm sends forged SYN-ACKs to the near host, as fast as they go.
type storm struct {
	out     *injector
	packets []forgery
	msgs    []message
	sent    atomic.Uint64
	over    chan struct{}
}

// forgery is a packet whose numbers are drawn anew each time. Each stands twice
// in it, once inverted, so that the checksum stays right.
type forgery struct {
	bytes         []byte
	ack, notAck   []byte
	echo, notEcho []byte // nil if it echoes no timestamp
}

func (f *forgery) draw(random *rand.Rand) {
	ack, echo := random.Uint32(), random.Uint32()
	binary.BigEndian.PutUint32(f.ack, ack)
	binary.BigEndian.PutUint32(f.notAck, ^ack)
	if f.echo != nil {
		binary.BigEndian.PutUint32(f.echo, echo)
		binary.BigEndian.PutUint32(f.notEcho, ^echo)
	}
}

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32
}

const stormBatch = 64

// brew prepares the packets: from what is probed with a wrong acknowledgement,
// from another port or another address of its, and to ports from first on.
// Half of them echo a timestamp; of the rest, half have none, and half echo 0.
func brew(t *testing.T, n network, first uint16) *storm {
	t.Helper()
	s := &storm{out: inject(t, n), msgs: make([]message, stormBatch), over: make(chan struct{})}
	for i := range stormBatch {
		to, from, other := n.from.Addr4(), n.to.Addr4(), n.router.Addr4()
		if i%2 == 1 {
			to, from, other = n.from.Addr6(), n.to.Addr6(), n.router.Addr6()
		}
		src, dst := netip.AddrPortFrom(from, 443), netip.AddrPortFrom(to, first)
		switch i / 2 % 8 {
		case 0, 1, 2: // nothing but the acknowledgement is wrong
		case 3, 4:
			src = netip.AddrPortFrom(from, 444)
		case 5:
			src = netip.AddrPortFrom(from, 445)
		case 6:
			src = netip.AddrPortFrom(other, 443)
		case 7:
			dst = netip.AddrPortFrom(to, first+1+uint16(i)) // not probed from, but within the range
		}
		f := forge(t, packet.Segment{Src: src, Dst: dst}, i/16)
		b := f.bytes
		s.packets = append(s.packets, f)
		address := &unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: s.out.to[i%2].Protocol,
			Ifindex: int32(s.out.to[i%2].Ifindex), Halen: s.out.to[i%2].Halen, Addr: s.out.to[i%2].Addr}
		h := &s.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(address)), unix.SizeofSockaddrLinklayer
		h.Iov = &unix.Iovec{Base: &b[0]}
		h.Iov.SetLen(len(b))
		h.SetIovlen(1)
	}
	return s
}

// forge makes a SYN-ACK, in one of four ways to get past the check of timestamps.
func forge(t *testing.T, s packet.Segment, way int) (f forgery) {
	t.Helper()
	const ack, echo = 0x5ca1ab1e, 0xdeadbea7
	s.Ack, s.Seq, s.Flags, s.Window, s.TTL = ack, ^uint32(ack), synAck, muteWindow, 57
	s.Options = packet.Options{HasMSS: true, MSS: 1400, Timestamps: way > 0, TSVal: ^uint32(0)}
	if way > 1 {
		s.Options.TSVal, s.Options.TSEcr, s.Window = ^uint32(echo), echo, echoWindow
	}
	var err error
	f.bytes, err = packet.AppendIP(nil, &s)
	must(t, err)
	at := func(number uint32) []byte {
		i := bytes.Index(f.bytes, binary.BigEndian.AppendUint32(nil, number))
		if i < 0 || i%2 != 0 {
			t.Fatalf("%#x stands at %d of %x", number, i, f.bytes)
		}
		return f.bytes[i:]
	}
	f.ack, f.notAck = at(ack), at(^uint32(ack))
	if way > 1 {
		f.echo, f.notEcho = at(echo), at(^uint32(echo))
	}
	return f
}

// begin sends so many packets, each with numbers of its own, and closes over then.
func (s *storm) begin(total uint64) {
	go func() {
		defer close(s.over)
		random := rand.New(rand.NewPCG(1, 2))
		for s.sent.Load() < total {
			for i := range s.packets {
				s.packets[i].draw(random)
			}
			for rest := s.msgs; len(rest) > 0; {
				n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.out.fd), uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)), 0, 0, 0)
				if errno != 0 && errno != unix.EINTR && errno != unix.ENOBUFS {
					s.out.t.Errorf("the storm ends after %d packets: %v", s.sent.Load(), errno)
					return
				}
				if errno == 0 {
					s.sent.Add(uint64(n))
					rest = rest[n:]
				}
			}
		}
	}()
}
