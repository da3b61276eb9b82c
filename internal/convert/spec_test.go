package convert

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestEverySpecComesBackFromItsMessage(t *testing.T) {
	hosts := []string{"db.fra", "10.0.0.2", "2001:db8::1", "fe80::1%eth0", "_x.fra."}
	rapid.Check(t, func(t *rapid.T) {
		want := probe.Spec{
			Count:    rapid.IntRange(0, probe.MaxCount).Draw(t, "count"),
			Interval: time.Duration(rapid.Int64Range(int64(probe.MinInterval), int64(probe.MaxInterval)).Draw(t, "interval")),
			Timeout:  time.Duration(rapid.Int64Range(int64(probe.MinTimeout), int64(probe.MaxTimeout)).Draw(t, "timeout")),
			Flows:    rapid.IntRange(1, probe.MaxFlows).Draw(t, "flows"),
			Mode:     rapid.SampledFrom([]probe.Mode{probe.HalfOpen, probe.Full, probe.Connect}).Draw(t, "mode"),
			Retries:  rapid.IntRange(0, probe.MaxRetries).Draw(t, "retries"),
			Family:   rapid.SampledFrom([]probe.Family{probe.AnyFamily, probe.IPv4, probe.IPv6}).Draw(t, "family"),
			Phase:    time.Duration(rapid.Int64Range(0, int64(probe.MinInterval)).Draw(t, "phase")),
			Sending: probe.Sending{
				Source:    rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}).Draw(t, "source"),
				Interface: rapid.SampledFrom([]string{"", "eth0"}).Draw(t, "interface"),
				DSCP:      rapid.Uint8Max(63).Draw(t, "dscp"),
				TTL:       rapid.Uint8().Draw(t, "ttl"),
				ECN:       rapid.Bool().Draw(t, "ecn"),
			},
		}
		if want.Poisson = rapid.Bool().Draw(t, "poisson"); !want.Poisson {
			want.Jitter = rapid.Float64Range(0, probe.MaxJitter).Draw(t, "jitter")
		}
		for range rapid.IntRange(1, 5).Draw(t, "targets") {
			target := probe.Target{Host: rapid.SampledFrom(hosts).Draw(t, "host"), Port: rapid.Uint16Min(1).Draw(t, "port")}
			target.Name = rapid.SampledFrom([]string{target.Address(), "fra-1"}).Draw(t, "name")
			want.Targets = append(want.Targets, target)
		}
		got, err := ToSpec(wired(t, FromSpec(&want), &synmeshv1.ProbeSpec{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, same); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestATargetWithoutAnAddressIsFoundByItsName(t *testing.T) {
	got, err := ToSpec(&synmeshv1.ProbeSpec{Targets: []*synmeshv1.Target{{Name: "db.fra:5432"}, {Name: "fra-1", Address: "[::1]:7"}, {Address: "[::1]:8"}}})
	must(t, err)
	want := []probe.Target{{Name: "db.fra:5432", Host: "db.fra", Port: 5432}, {Name: "fra-1", Host: "::1", Port: 7}, {Name: "[::1]:8", Host: "::1", Port: 8}}
	if d := cmp.Diff(want, got.Targets); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestATargetThatIsNoneIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target *synmeshv1.Target
		want   string
	}{
		{"nothing", &synmeshv1.Target{}, `targets[1]: target "": no port; write host:443`},
		{"the name of an agent", &synmeshv1.Target{Name: "fra-1"}, `targets[1]: target "fra-1": no port; write fra-1:443`},
		{"several ports", &synmeshv1.Target{Name: "fra-1", Address: "h:1-65535"}, `targets[1]: address "h:1-65535" has several ports; one is wanted`},
		{"an address that is none", &synmeshv1.Target{Name: "fra-1", Address: "0.0.0.0:1"}, `targets[1]: target "0.0.0.0:1": 0.0.0.0 is no host's address; a unicast address is wanted`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ToSpec(&synmeshv1.ProbeSpec{Targets: []*synmeshv1.Target{{Name: "a:1"}, tt.target}})
			if err == nil || err.Error() != tt.want || got.Targets != nil {
				t.Errorf("ToSpec = %+v, %v, want the error %s", got, err, tt.want)
			}
		})
	}
}

// What a message lacks or overdoes is for Validate to say, in the operator's words.
func TestAMessageThatIsOutOfBoundsIsNotValid(t *testing.T) {
	whole := func() *synmeshv1.ProbeSpec {
		return FromSpec(&probe.Spec{Targets: []probe.Target{{Name: "a:1", Host: "a", Port: 1}}, Interval: time.Second, Timeout: time.Second, Flows: 1})
	}
	for _, tt := range []struct {
		name   string
		change func(*synmeshv1.ProbeSpec)
		want   string
	}{
		{"no targets", func(m *synmeshv1.ProbeSpec) { m.Targets = nil }, "no target; name at least one, as in db.fra:5432"},
		{"no interval", func(m *synmeshv1.ProbeSpec) { m.Interval = nil }, "interval 0s is outside 1ms to 24h0m0s"},
		{"an interval beyond all durations", func(m *synmeshv1.ProbeSpec) { m.Interval = &durationpb.Duration{Seconds: math.MaxInt64} }, "interval 2562047h47m16.854775807s is outside 1ms to 24h0m0s"},
		{"no timeout", func(m *synmeshv1.ProbeSpec) { m.Timeout = nil }, "timeout 0s is outside 1ms to 1m0s"},
		{"a negative count", func(m *synmeshv1.ProbeSpec) { m.Count = math.MinInt64 }, "count -9223372036854775808 is outside 1 to 10000000 (0 goes on until stopped)"},
		{"negative retries", func(m *synmeshv1.ProbeSpec) { m.Retries = math.MinInt32 }, "-2147483648 retries are outside 0 to 6"},
		{"a mode that is not known", func(m *synmeshv1.ProbeSpec) { m.Mode = 4 }, "mode 3 is none"},
		{"a mode that would be known if it were cut", func(m *synmeshv1.ProbeSpec) { m.Mode = 256 + 1 }, "mode 3 is none"},
		{"a negative mode", func(m *synmeshv1.ProbeSpec) { m.Mode = -1 }, "mode 3 is none"},
		{"negative flows", func(m *synmeshv1.ProbeSpec) { m.Flows = math.MinInt32 }, "-2147483648 flows are outside 1 to 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := whole()
			tt.change(m)
			s, err := ToSpec(m)
			must(t, err)
			if err := s.Validate(); err == nil || err.Error() != tt.want {
				t.Errorf("Validate() says %v, want %s", err, tt.want)
			}
		})
	}
}

func TestFamiliesAreTranslated(t *testing.T) {
	for m, f := range map[synmeshv1.AddressFamily]probe.Family{
		synmeshv1.AddressFamily_ADDRESS_FAMILY_UNSPECIFIED: probe.AnyFamily,
		synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV4:        probe.IPv4,
		synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV6:        probe.IPv6,
	} {
		if FromFamily(f) != m || ToFamily(m) != f {
			t.Errorf("%v is %v and %v is %v", f, FromFamily(f), m, ToFamily(m))
		}
	}
	if got := ToFamily(99); got != probe.AnyFamily {
		t.Errorf("a family that is not known is %v, want any", got)
	}
}

func TestAMessageWithoutAModeIsHalfOpen(t *testing.T) {
	s, err := ToSpec(&synmeshv1.ProbeSpec{})
	if err != nil || s.Mode != probe.HalfOpen {
		t.Errorf("the mode is %v (%v), want half-open", s.Mode, err)
	}
}
