package results

import "testing"

// FuzzParseToken holds page tokens to what this service writes, and to a place
// that a page can begin at.
func FuzzParseToken(f *testing.F) {
	for _, token := range []string{"0.0.0", "1763755200000000000.17.1763758800000000000", "+1.0.2", "01.0.2", "1.-1.2", "3.0.2", "1.0.9223372036854775808", "1.0.2 ", "1.0", ""} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parseToken(token)
		if err == nil && (p.token() != token || p.from < 0 || p.skip < 0 || p.end < p.from) {
			t.Errorf("%q is read as %+v", token, p)
		}
	})
}
