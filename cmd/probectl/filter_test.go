package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestFiltersAreRead(t *testing.T) {
	for _, c := range []struct {
		args []string
		f    filterFlags
		want *synmeshv1.SeriesFilter
		err  string
	}{
		{nil, filterFlags{}, &synmeshv1.SeriesFilter{}, ""},
		{[]string{"mesh"}, filterFlags{from: "dc=nyc,!canary", flow: 61003},
			&synmeshv1.SeriesFilter{Source: "measurements/mesh", Agents: "dc=nyc,!canary", LocalPort: 61003}, ""},
		{[]string{"runs/k3"}, filterFlags{to: []string{"fra-1", "db.fra:5432", "dc in (fra,sin)", "[2001:db8::1]:443"}},
			&synmeshv1.SeriesFilter{Source: "runs/k3", Targets: []string{"fra-1", "db.fra:5432", "[2001:db8::1]:443"}, TargetAgents: "dc in (fra,sin)"}, ""},
		{nil, filterFlags{to: []string{"!fra-1"}}, &synmeshv1.SeriesFilter{TargetAgents: "!fra-1"}, ""},
		{nil, filterFlags{to: []string{"dc=fra", "dc=nyc"}}, nil, `--to selects agents twice, by "dc=fra" and by "dc=nyc"; give one selector, with commas for 'and'`},
		{nil, filterFlags{to: []string{""}}, nil, "--to is empty; name a target such as db.fra:5432, or agents such as dc=fra"},
		{nil, filterFlags{to: []string{"dc="}}, nil, `--to: selector "dc="`},
		{nil, filterFlags{from: "dc="}, nil, `--from: selector "dc="`},
		{[]string{"agents/a"}, filterFlags{}, nil, `"agents/a" is no source of results; write the name of a measurement, or runs/NAME`},
		{[]string{"a b"}, filterFlags{}, nil, `name "a b": ' ' is not allowed in a name`},
	} {
		got, err := c.f.filter(c.args)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%v %+v: got %v, want %s", c.args, c.f, err, c.err)
			}
			continue
		}
		if err != nil || !proto.Equal(got, c.want) {
			t.Errorf("%v %+v: got %s, %v", c.args, c.f, prototext.Format(got), err)
		}
	}
}

func TestTimesAreRead(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ since, until, want string }{
		{"", "", "- -"},
		{"90m", "", "2026-11-20T10:30:00Z -"},
		{"7d", "1d", "2026-11-13T12:00:00Z 2026-11-19T12:00:00Z"},
		{"120", "30s", "2026-11-20T11:58:00Z 2026-11-20T11:59:30Z"},
		{"2026-11-20T01:00:00+01:00", "2026-11-20T11:00:00.5Z", "2026-11-20T00:00:00Z 2026-11-20T11:00:00.5Z"},
		{"", "2h", "--since 2026-11-20T11:00:00Z is not before --until 2026-11-20T10:00:00Z"},
		{"5m", "5m", "--since 2026-11-20T11:55:00Z is not before --until 2026-11-20T11:55:00Z"},
		{"-5m", "", "write how long ago, such as 90m or 7d, or an instant such as 2026-11-20T19:00:00Z"},
		{"yesterday", "", "write how long ago, such as 90m or 7d, or an instant such as 2026-11-20T19:00:00Z"},
		{"2026-11-20", "", "write how long ago, such as 90m or 7d, or an instant such as 2026-11-20T19:00:00Z"},
	} {
		got, err := shownTimes(now, c.since, c.until)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("--since %q --until %q: got %s, want %s", c.since, c.until, got, c.want)
		}
	}
}

// shownTimes reads the two flags, and shows what they say.
func shownTimes(now time.Time, since, until string) (string, error) {
	var s stretch
	for _, flag := range []struct {
		text string
		into *moment
	}{{since, &s.since}, {until, &s.until}} {
		if flag.text == "" {
			continue
		}
		if err := flag.into.Set(flag.text); err != nil {
			return "", err
		}
	}
	words := []string{"-", "-"}
	start, end, err := s.times(now)
	if start != nil {
		words[0] = start.AsTime().Format(time.RFC3339Nano)
	}
	if end != nil {
		words[1] = end.AsTime().Format(time.RFC3339Nano)
	}
	return strings.Join(words, " "), err
}

// FuzzMoment reads instants. One that was taken is not after now, unless it says so itself.
func FuzzMoment(f *testing.F) {
	for _, text := range []string{"1h", "7d", "0", "90", "1e8", "-1s", "2026-11-20T19:00:00Z", "2026-11-20T19:00:00.5+01:00", "32768d", "d", "0001-01-01T00:00:00Z", "NaN", "Inf"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		var m moment
		if err := m.Set(text); err != nil {
			if m != (moment{}) {
				t.Errorf("%q is read as %+v, and refused: %v", text, m, err)
			}
			return
		}
		at := m.at(now, time.Hour)
		if exact, err := time.Parse(time.RFC3339Nano, text); err == nil {
			if !at.Equal(exact) {
				t.Errorf("%q is read as %v", text, at)
			}
		} else if at.After(now) || at.Before(now.Add(-maxAgo)) {
			t.Errorf("%q is read as %v", text, at)
		}
	})
}

func TestQuantilesHaveNames(t *testing.T) {
	for q, want := range map[float64]string{0: "p0", 0.05: "p5", 0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p99.9", 0.9999: "p99.99", 0.125: "p12.5", 0.001: "p0.1", 1: "p100"} {
		if got := quantileName(q); got != want {
			t.Errorf("%v is %s, want %s", q, got, want)
		}
	}
}

func TestHistoryRequestsAreChecked(t *testing.T) {
	for want, f := range map[string]historyFlags{
		"--quantiles: 2 is outside 0 to 1; the median is 0.5": {quantiles: []float64{2}},
		"--quantiles: 0.5 is there twice":                     {quantiles: []float64{0.5, 0.9, 0.5}},
		"--step 1µs is too short; it is 1ms or more":          {step: seconds(time.Microsecond)},
		"--step -1m0s is too short; it is 1ms or more":        {step: seconds(-time.Minute)},
	} {
		if _, err := f.request(nil, time.Now()); fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Steps begin at round times, unless somebody asks for others.
func TestStepsAreRound(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 34, 56, 789, time.UTC)
	for since, want := range map[string]string{"": "2026-11-20T11:30:00Z", "2d": "2026-11-18T12:30:00Z", "2026-11-20T12:01:02.5Z": "2026-11-20T12:01:02.5Z"} {
		f := historyFlags{step: seconds(10 * time.Minute)}
		if since != "" {
			if err := f.since.Set(since); err != nil {
				t.Fatal(err)
			}
		}
		m, err := f.request(nil, now)
		if err != nil || m.GetStartTime().AsTime().Format(time.RFC3339Nano) != want {
			t.Errorf("--since %q: %v, %v; want %s", since, m.GetStartTime().AsTime(), err, want)
		}
	}
}
