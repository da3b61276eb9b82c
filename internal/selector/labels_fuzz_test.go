package selector

import (
	"strings"
	"testing"
)

// FuzzParseLabels holds ParseLabels to CheckLabels, and to selectors: every
// label that is taken can be asked for.
func FuzzParseLabels(f *testing.F) {
	for _, text := range []string{"dc=fra", "dc=fra\nrack=a1", "dc=fra\ndc=nyc", "name=x", "=", "dc=", "a=b=c", "\u00fc=1", strings.Repeat("k", 64) + "=v"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := ParseLabels(strings.Split(text, "\n"))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error for %q is more than one line: %v", text, err)
			}
			return
		}
		if err := CheckLabels(labels); err != nil {
			t.Errorf("%q is taken, and refused: %v", text, err)
		}
		for key, value := range labels {
			s, err := Parse(key + "=" + value)
			if err != nil || !s.Matches("", labels) {
				t.Errorf("%q cannot be selected by %s=%s: %v", text, key, value, err)
			}
		}
	})
}
