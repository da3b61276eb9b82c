package resolve

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAddressesStandForThemselves(t *testing.T) {
	for _, tt := range []struct {
		host   string
		family probe.Family
		want   string
		err    string
	}{
		{"192.0.2.1", probe.AnyFamily, "192.0.2.1", ""},
		{"192.0.2.1", probe.IPv4, "192.0.2.1", ""},
		{"192.0.2.1", probe.IPv6, "", "192.0.2.1 is not an IPv6 address"},
		{"2001:db8::1", probe.AnyFamily, "2001:db8::1", ""},
		{"2001:db8::1", probe.IPv4, "", "2001:db8::1 is not an IPv4 address"},
		{"fe80::1%eth0", probe.IPv6, "fe80::1%eth0", ""},
		{"::ffff:192.0.2.1", probe.IPv4, "192.0.2.1", ""},
		{"::ffff:192.0.2.1", probe.IPv6, "", "192.0.2.1 is not an IPv6 address"},
	} {
		r := Resolver{Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			t.Errorf("%s is looked up", tt.host)
			return nil, nil
		}}
		got := r.Targets(context.Background(), []probe.Target{{Host: tt.host, Port: 80}}, tt.family)[0]
		switch {
		case tt.err != "":
			if got.Err == nil || got.Err.Error() != tt.err {
				t.Errorf("%s as IPv%d: error %v, want %s", tt.host, tt.family, got.Err, tt.err)
			}
		case got.Err != nil || got.Remote != netip.AddrPortFrom(netip.MustParseAddr(tt.want), 80):
			t.Errorf("%s as IPv%d: %v", tt.host, tt.family, got)
		}
	}
}

// A name that stands in the hosts file of every machine, so that no DNS server is asked.
func TestANameHasAnAddress(t *testing.T) {
	got, err := new(Resolver).host(context.Background(), "localhost", probe.IPv4, netip.Addr{})
	if err != nil || got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%v, %v", got, err)
	}
}

func TestEveryTargetHasItsOwnAddressOrItsOwnError(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no name is looked up, then
	targets := []probe.Target{
		{Host: "192.0.2.1", Port: 1}, {Host: "2001:db8::1", Port: 2}, {Host: "192.0.2.1", Port: 3}, {Host: "name.invalid", Port: 4},
	}
	got := Targets(ctx, targets, probe.AnyFamily)
	for i, want := range []string{"192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.1:3"} {
		if got[i].Err != nil || got[i].Remote != netip.MustParseAddrPort(want) {
			t.Errorf("target %d: %+v, want %s", i, got[i], want)
		}
	}
	if got[3].Err == nil || !strings.Contains(got[3].Err.Error(), "name.invalid") {
		t.Errorf("%+v", got[3])
	}
	for i := range 100 {
		targets = append(targets, probe.Target{Host: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String(), Port: 5})
	}
	for i, a := range Targets(context.Background(), targets[4:], probe.IPv4) {
		if want := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}); a.Err != nil || a.Remote.Addr() != want {
			t.Errorf("target %d: %+v, want %s", i, a, want)
		}
	}
	if got := Targets(ctx, nil, probe.AnyFamily); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
