package history

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzParseParts(f *testing.F) {
	for _, s := range []string{"raw-20261120-1-1.db", "minutes-20261120-1-12.db", "hours-20261120-3-2.db", "raw-20261131-1-1.db", "raw-20261120-1-01.db", "raw-20261120-1.db", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, ok := parseParts(s); ok && (p.String() != s || p.first < 1 || p.last < p.first) {
			t.Errorf("%q is taken for %+v", s, p)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(withTail(seriesKey("fra-1", "measurements/m", "nyc-1"), 7))
	f.Add(withTail(agentKey("fra-1"), 7))
	f.Add([]byte{})
	// The lengths are as long as their bytes allow.
	f.Add(withTail(seriesKey(strings.Repeat("a", 255), "s", "t"), 7))
	f.Add(withTail(seriesKey("fra-1", strings.Repeat("s", 65535), "t"), 7))
	f.Fuzz(func(t *testing.T, key []byte) {
		s, tail, ok := parseKey(key)
		if !ok || s.Source == "" && s.Target == "" { // of reports, then
			return
		}
		if again := withTail(seriesKey(s.Agent, s.Source, s.Target), tail); !bytes.Equal(again, key) {
			t.Errorf("%x is taken for that of %+v, which is %x", key, s, again)
		}
	})
}
