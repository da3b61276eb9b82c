//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/internal/lab"
)

func TestMain(m *testing.M) {
	if ran, err := childMain(os.Stdout); ran {
		exit(err)
		os.Exit(0)
	}
	if err := lab.Enter(); err != nil {
		exit(err)
	}
	goleak.VerifyTestMain(m)
}

func TestFiguresOfASmokeTestArePlausible(t *testing.T) {
	o := smoke
	o.targets, o.slice = 0, 0
	n, err := build(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	relayed, err := buildRelayed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := relayed.close(); err != nil {
			t.Error(err)
		}
	}()
	b := &suite{options: o, network: n, progress: t.Output()}
	for _, m := range b.methods(relayed) {
		e, err := b.against(t.Context(), relayed, m, false)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		if e.compared != m.probes || e.p50 > e.p99 || e.p99 > e.max || e.max > time.Second {
			t.Errorf("%s: %+v of %d probes", m.name, e, m.probes)
		}
	}
	p := newPage(o, peers{missing: []string{"peer"}})
	if err := b.steady(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	p.finish()
	text := p.markdown()
	for _, want := range []string{"| 200 of 200 |", "Not installed here: peer."} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
}

func TestReportsOfPeersAreRead(t *testing.T) {
	ms := func(f float64) time.Duration { return time.Duration(f * 1e6) }
	tests := []struct {
		name, out string
		parse     func([]byte) ([]timed, error)
		want      []timed
	}{
		{"hping3, whose second probe was not answered",
			"HPING 10.77.0.2 (eth0 10.77.0.2): S set, 40 headers + 0 data bytes\n" +
				"len=44 ip=10.77.0.2 ttl=64 DF id=0 sport=443 flags=SA seq=0 win=64240 rtt=0.1 ms\n" +
				"len=44 ip=10.77.0.2 ttl=64 DF id=0 sport=443 flags=SA seq=2 win=64240 rtt=7.9 ms\n",
			parseHping, []timed{{RTT: ms(0.1)}, {Seq: 1}, {RTT: ms(7.9)}}},
		{"scamper",
			"ping 10.77.0.1 to 10.77.0.2: 40 byte packets\n44 bytes from 10.77.0.2, seq=0 ttl=64 tcp=sa time=0.084 ms\n",
			parseScamper, []timed{{RTT: ms(0.084)}}},
		{"nping",
			"SENT (0.0145s) TCP 10.77.0.1:6152 > 10.77.0.2:443 S ttl=64 id=36578 iplen=40  seq=1182042262 win=1480 \n" +
				"RCVD (0.0155s) TCP 10.77.0.2:443 > 10.77.0.1:6152 SA ttl=64 id=0 iplen=44  seq=1682121950 win=65495 <mss 65495>\n",
			parseNping, []timed{{RTT: time.Millisecond, Seq: 1682121950}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.out))
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i].RTT = got[i].RTT.Round(time.Microsecond)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReportsFindTheirHandshakes(t *testing.T) {
	seen := []handshake{{rtt: 10, seq: 100, port: 7}, {port: 8}, {rtt: 30, seq: 300, port: 7}}
	reported := []timed{{RTT: 35, Seq: 300}, {RTT: 12, Port: 7}, {RTT: 31, Port: 7}, {RTT: 1, Port: 8}, {RTT: 1, Seq: 5}}
	got, err := compare(reported, seen)
	want := errorOf{compared: 3, p50: 2, p99: 2, max: 5}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := compare(reported[3:], seen); err == nil {
		t.Error("reports without a handshake are no error")
	}
}

func TestMeterLeavesTheEdgesOut(t *testing.T) {
	start := time.Unix(0, 0)
	m := meter{ticks: []tick{{start, 50}, {start.Add(time.Second), 50}}}
	for i := range 100 {
		m.ticks = append(m.ticks, tick{start.Add(time.Second + time.Duration(i+1)*10*time.Millisecond), uint64(50 + (i+1)*100)})
	}
	m.ticks = append(m.ticks, tick{start.Add(9 * time.Second), 10050})
	got, err := m.span()
	if want := 980 * time.Millisecond; err != nil || (got-want).Abs() > time.Millisecond {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestAddressesCountOnce(t *testing.T) {
	out := "#masscan\nopen tcp 443 10.128.0.1 1700000000\n10.128.0.1\n10.128.0.2\n10.77.0.2\n"
	if got := addressesIn([]byte(out), netip.MustParsePrefix("10.128.0.0/30")); len(got) != 2 {
		t.Errorf("got %v", fmt.Sprint(got))
	}
}

func TestTargetsArePowersOfTwo(t *testing.T) {
	for n, ok := range map[int]bool{0: true, 256: true, 1000: false, maxTargets: true, 2 * maxTargets: false, -4: false} {
		if err := (options{targets: n}).check(); (err == nil) != ok {
			t.Errorf("%d: %v", n, err)
		}
	}
}
