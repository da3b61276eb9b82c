package probe

import (
	"math"
	"testing"
	"time"
)

func validSpec() Spec {
	return Spec{
		Targets: []Target{{"db.fra:5432", "db.fra", 5432}}, Count: 10,
		Interval: DefaultInterval, Timeout: DefaultTimeout, Flows: 1,
	}
}

func TestSpecsWithinTheLimitsAreValid(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Spec)
	}{
		{"the defaults", func(*Spec) {}},
		{"no count goes on until stopped", func(s *Spec) { s.Count = 0 }},
		{"the highest count", func(s *Spec) { s.Count = MaxCount }},
		{"the shortest interval", func(s *Spec) { s.Interval = MinInterval }},
		{"the longest interval", func(s *Spec) { s.Interval = MaxInterval }},
		{"the shortest timeout", func(s *Spec) { s.Timeout = MinTimeout }},
		{"the longest timeout", func(s *Spec) { s.Timeout = MaxTimeout }},
		{"the most flows", func(s *Spec) { s.Flows = MaxFlows }},
		{"the most retries", func(s *Spec) { s.Retries = MaxRetries }},
		{"the most jitter", func(s *Spec) { s.Jitter = MaxJitter }},
		{"a phase of a whole interval", func(s *Spec) { s.Phase = s.Interval }},
		{"full handshakes", func(s *Spec) { s.Mode = Full }},
		{"handshakes by the kernel", func(s *Spec) { s.Mode = Connect }},
		{"IPv4 only", func(s *Spec) { s.Family = IPv4 }},
		{"IPv6 only", func(s *Spec) { s.Family = IPv6 }},
		{"the name of an agent", func(s *Spec) { s.Targets[0].Name = "fra-1" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec()
			tt.change(&s)
			if err := s.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestASpecThatIsWrongSaysWhere(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Spec)
		want   string
	}{
		{"no target", func(s *Spec) { s.Targets = nil }, "no target; name at least one, as in db.fra:5432"},
		{"too many targets", func(s *Spec) { s.Targets = make([]Target, MaxTargets+1) }, "1048577 targets; 1048576 are allowed"},
		{"a negative count", func(s *Spec) { s.Count = -1 }, "count -1 is outside 1 to 10000000 (0 goes on until stopped)"},
		{"too high a count", func(s *Spec) { s.Count = MaxCount + 1 }, "count 10000001 is outside 1 to 10000000 (0 goes on until stopped)"},
		{"no interval", func(s *Spec) { s.Interval = 0 }, "interval 0s is outside 1ms to 24h0m0s"},
		{"too short an interval", func(s *Spec) { s.Interval = MinInterval - 1 }, "interval 999.999µs is outside 1ms to 24h0m0s"},
		{"too long an interval", func(s *Spec) { s.Interval = MaxInterval + time.Second }, "interval 24h0m1s is outside 1ms to 24h0m0s"},
		{"jitter that is no number", func(s *Spec) { s.Jitter = math.NaN() }, "jitter NaN is outside 0 to 0.5; it is a fraction of the interval"},
		{"too much jitter", func(s *Spec) { s.Jitter = 0.6 }, "jitter 0.6 is outside 0 to 0.5; it is a fraction of the interval"},
		{"jitter and poisson", func(s *Spec) { s.Jitter, s.Poisson = 0.1, true }, "jitter and poisson exclude each other; poisson alone is random enough"},
		{"a phase of more than an interval", func(s *Spec) { s.Phase = time.Second + 1 }, "phase 1.000000001s is outside 0 to the interval of 1s"},
		{"no timeout", func(s *Spec) { s.Timeout = 0 }, "timeout 0s is outside 1ms to 1m0s"},
		{"a negative timeout", func(s *Spec) { s.Timeout = -time.Second }, "timeout -1s is outside 1ms to 1m0s"},
		{"too long a timeout", func(s *Spec) { s.Timeout = MaxTimeout + time.Millisecond }, "timeout 1m0.001s is outside 1ms to 1m0s"},
		{"no flow", func(s *Spec) { s.Flows = 0 }, "0 flows are outside 1 to 256"},
		{"too many flows", func(s *Spec) { s.Flows = MaxFlows + 1 }, "257 flows are outside 1 to 256"},
		{"negative retries", func(s *Spec) { s.Retries = -1 }, "-1 retries are outside 0 to 6"},
		{"too many retries", func(s *Spec) { s.Retries = MaxRetries + 1 }, "7 retries are outside 0 to 6"},
		{"a mode that does not exist", func(s *Spec) { s.Mode = Connect + 1 }, "mode 3 is none"},
		{"a family that does not exist", func(s *Spec) { s.Family = 5 }, "family 5 is neither 4 nor 6"},
		{"a target without a host", func(s *Spec) { s.Targets[0].Host = "" }, `target "db.fra:5432": the host is missing before the colon`},
		{"a target without a port", func(s *Spec) { s.Targets[0].Port = 0 }, `target "db.fra:5432": port 0 cannot be probed`},
		{"a target that is no host", func(s *Spec) { s.Targets[0] = Target{"fra-1", "0.0.0.0", 7} }, `target "fra-1": 0.0.0.0 is no host's address; a unicast address is wanted`},
		{"a target whose zone is no name", func(s *Spec) { s.Targets[0] = Target{"fra-1", "fe80::1%a b", 7} }, `target "fra-1": zone "a b" of fe80::1 is no interface's name: ' ' is not allowed`},
		{"a second target that is wrong", func(s *Spec) { s.Targets = append(s.Targets, Target{"x:1", "a b", 1}) }, `target "x:1": host "a b" is neither an IP address nor a DNS name: ' ' is not allowed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec()
			tt.change(&s)
			if err := s.Validate(); err == nil || err.Error() != tt.want {
				t.Errorf("Validate() says\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestProbesAndRateFollowFromTheSpec(t *testing.T) {
	target := Target{"a:1", "a", 1}
	for _, tt := range []struct {
		name   string
		spec   Spec
		probes int
		rate   float64
	}{
		{"one flow", Spec{Targets: []Target{target, target}, Count: 5, Interval: time.Second, Flows: 1}, 10, 1},
		{"flows multiply both", Spec{Targets: []Target{target, target}, Count: 5, Interval: 250 * time.Millisecond, Flows: 3}, 30, 12},
		{"no count has no end", Spec{Targets: []Target{target}, Interval: 10 * time.Second, Flows: 1}, 0, 0.1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.spec.Probes(); got != tt.probes {
				t.Errorf("Probes() = %d, want %d", got, tt.probes)
			}
			if got := tt.spec.Rate(); math.Abs(got-tt.rate) > 1e-12 {
				t.Errorf("Rate() = %v, want %v", got, tt.rate)
			}
		})
	}
}

func TestRetriesWaitTwiceAsLongEachTime(t *testing.T) {
	for n, want := range []time.Duration{0, 1, 3, 7, 15, 31, 63} { // RFC 6298 section 5.5
		if got := Backoff(n); got != want*time.Second {
			t.Errorf("retry %d comes %v after the first SYN, want %v", n, got, want*time.Second)
		}
	}
}

func TestALimitedSpecHasALength(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Spec)
		want   time.Duration
	}{
		{"the intervals and the last wait", func(*Spec) {}, 13 * time.Second},
		{"retries come before the last wait", func(s *Spec) { s.Retries = 2 }, 16 * time.Second},
		{"a full handshake waits for the close as well", func(s *Spec) { s.Mode = Full }, 16 * time.Second},
		{"no count has no end", func(s *Spec) { s.Count = 0 }, 0},
		{"a spec for centuries is as long as can be told", func(s *Spec) { s.Count, s.Interval = MaxCount, MaxInterval }, math.MaxInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec()
			tt.change(&s)
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			if got := s.Length(); got != tt.want {
				t.Errorf("Length() = %v, want %v", got, tt.want)
			}
		})
	}
}
