package history

import (
	"strings"
	"testing"
)

// FuzzFileName holds parseName and String to each other: whatever else lies in
// the folder is none of ours.
func FuzzFileName(f *testing.F) {
	for _, n := range []name{{0, 1}, {20778, 1}, {20778, 2}, {20778, 1 << 30}, {-1, 1}} {
		f.Add(n.String())
		f.Add(n.String() + damagedSuffix)
	}
	for _, s := range []string{filePrefix + fileSuffix, filePrefix + "2026-11-21-0" + fileSuffix, filePrefix + "20261121-01" + fileSuffix, filePrefix + "20261121--1" + fileSuffix, ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := parseName(s); ok && n.String() != s {
			t.Errorf("%q is read as %v, which is written %q", s, n, n.String())
		}
		n, ok := parseDamagedName(s)
		if ok && (!strings.HasPrefix(s, n.String()) || !strings.HasSuffix(s, damagedSuffix)) {
			t.Errorf("%q is read as what is left of %q", s, n.String())
		}
	})
}
