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

// FuzzParseMark holds cursors to what this service writes.
func FuzzParseMark(f *testing.F) {
	for _, text := range []string{"1.187a1b2c3d4e5f60", "1.187a1b2c3d4e5f60.0", "1.187a1b2c3d4e5f60.1000", "1.187A1B2C3D4E5F60", "1.187a1b2c3d4e5f60.-1",
		"1.187a1b2c3d4e5f60.01", "1..1", "1.", "2.187a1b2c3d4e5f60", "187a1b2c3d4e5f60", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMark(text)
		if err == nil && (m.String() != text || len(m.entry) != 8 || m.rows < allRows) {
			t.Errorf("%q is read as %+v", text, m)
		}
	})
}

// FuzzParseSpot holds page tokens of Query to what this service writes.
func FuzzParseSpot(f *testing.F) {
	f.Add(spot{From: 1, To: 2}.token())
	f.Add(spot{From: 1, To: 2, Source: "runs/a", Agent: "fra-1", Target: "x:1", Port: 61000, Step: 3}.token())
	f.Add("eyJmIjotMSwidCI6Mn0")
	f.Add("e30=")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parseSpot(token)
		if err == nil && (p.token() != token || p.From < 0 || p.To < p.From || p.Step < 0) {
			t.Errorf("%q is read as %+v", token, p)
		}
	})
}
