package identity

import (
	"strings"
	"testing"
)

func TestIdentitiesAreReadAsTheyAreWritten(t *testing.T) {
	for uri, want := range map[string]Identity{
		"spiffe://fleet-0123456789abcdef/agent/fra-1":         {"fleet-0123456789abcdef", Agent, "fra-1", 0},
		"spiffe://example.org/controller/Main_1.a":            {"example.org", Controller, "Main_1.a", 0},
		"spiffe://example.org/user/admin/alice":               {"example.org", User, "alice", Admin},
		"spiffe://f/user/viewer/" + strings.Repeat("a", 63):   {"f", User, strings.Repeat("a", 63), Viewer},
		"spiffe://" + strings.Repeat("f", 255) + "/agent/a-b": {strings.Repeat("f", 255), Agent, "a-b", 0},
	} {
		got, err := Parse(uri)
		if err != nil || got != want || got.URI() != uri {
			t.Errorf("%s: %+v, %v", uri, got, err)
		}
	}
}

func TestOtherIdentitiesAreRefused(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                            "does not begin with spiffe://",
		"https://f/agent/a":                           "does not begin with spiffe://",
		"SPIFFE://f/agent/a":                          "does not begin with spiffe://",
		"spiffe:///agent/a":                           "it has 1 to 255",
		"spiffe://F/agent/a":                          "'F' is not allowed in a fleet's name",
		"spiffe://f:1/agent/a":                        "':' is not allowed",
		"spiffe://f/agent/":                           "the name is missing",
		"spiffe://f/agent/a/":                         "it is not FLEET/agent/NAME",
		"spiffe://f/agent/a?b":                        "'?' is not allowed in a name",
		"spiffe://f/agent/%61":                        "'%' is not allowed in a name",
		"spiffe://f/agent/..":                         `name ".."`,
		"spiffe://f/user/alice":                       "it is not FLEET/agent/NAME",
		"spiffe://f/user/root/alice":                  `role "root" is unknown; it is viewer, operator or admin`,
		"spiffe://f/spire/server":                     "it is not FLEET/agent/NAME",
		"spiffe://f//a":                               "it is not FLEET/agent/NAME",
		"spiffe://f/agent//a":                         "it is not FLEET/agent/NAME",
		"spiffe://f/controller/" + "x\x00":            `'\x00' is not allowed`,
		"spiffe://f/agent/" + strings.Repeat("a", 64): "63 are allowed",
		"spiffe://" + strings.Repeat("f", 256) + "/agent/a": "it has 1 to 255",
	} {
		if got, err := Parse(uri); err == nil || !strings.Contains(err.Error(), want) || got != (Identity{}) {
			t.Errorf("%q: %+v, %v; want %q", uri, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, uri := range []string{"spiffe://f/agent/a", "spiffe://f/user/admin/a", "spiffe://f/controller/c", "spiffe://f/agent/%2e"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := Parse(uri)
		if err != nil {
			return
		}
		if id.URI() != uri || id.Check() != nil {
			t.Errorf("%q became %+v", uri, id)
		}
	})
}
