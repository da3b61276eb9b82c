package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/synmesh/synmesh/probe"
)

// FuzzParseThresholds reads conditions. One that was taken can be broken or
// kept, and says which it is.
func FuzzParseThresholds(f *testing.F) {
	for _, text := range []string{"p99>5ms", "loss>1%", "p50<=1ms, max >= 2s", "jitter>0", "loss<0.5", "loss>NaN", "loss>Inf%", "p99>1e9h", "p98>1", ">", "", ","} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ts, err := parseThresholds(text)
		if err != nil {
			if ts != nil {
				t.Errorf("%q is read as %+v, and refused: %v", text, ts, err)
			}
			return
		}
		for _, condition := range ts {
			condition.value(new(probe.Summary))
			if math.IsNaN(condition.limit) || math.IsInf(condition.limit, 0) {
				t.Errorf("%q has a limit of %v, which nothing can keep or break", text, condition.limit)
			}
		}
	})
}

// FuzzReadContext reads context files: what is taken has nothing that this
// version does not know.
func FuzzReadContext(f *testing.F) {
	for _, text := range []string{"controller: localhost:7000\n", "controller: c:1\ncertificate: a\nkey: b\nroots: c\n", "controller: [c]\n", "kontroller: c:1\n", "controller: &a c\nkey: *a\n", "---\n---\n", "\t", ""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		base := t.TempDir()
		t.Setenv("XDG_CONFIG_HOME", base)
		folder := filepath.Join(base, "synmesh", "contexts")
		err := os.MkdirAll(folder, 0o700)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "default.yaml"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		implied, err := readContext("")
		named, err2 := readContext("default")
		if (err == nil) != (err2 == nil) || err == nil && !reflect.DeepEqual(implied, named) {
			t.Errorf("implied it is %+v (%v), named %+v (%v)", implied, err, named, err2)
		}
	})
}
