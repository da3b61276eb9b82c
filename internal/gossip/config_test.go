package gossip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestConfigurationIsCheckedBeforeAnythingStarts(t *testing.T) {
	tests := []struct {
		name string
		set  func(*Config)
		want string // "" if it is right
	}{
		{"as it should be", func(*Config) {}, ""},
		{"where to listen is left out", func(c *Config) { c.Listen = netip.AddrPort{} }, ""},
		{"a port to advertise is left out", func(c *Config) { c.Advertise = loopback }, ""},
		{"no name", func(c *Config) { c.Self.Name = "" }, `gossip: what we tell of ourselves: name "": the name is missing; it has 1 to 63 characters`},
		{"no role", func(c *Config) { c.Self.Role = 0 }, "role(0) is unknown; it is agent or controller"},
		{"a label of spaces", func(c *Config) { c.Self.Labels = map[string]string{"dc": " "} }, `' ' is not allowed in a value`},
		{"a responder without a port", func(c *Config) { c.Self.Responder = "fra-1" }, `responder: "fra-1" is not host:port`},
		{"a responder at port 0", func(c *Config) { c.Self.Responder = "fra-1:0" }, "not a number from 1 to 65535"},
		{"a seed without a port", func(c *Config) { c.Seeds = []string{"fra-1"} }, `gossip: seed: "fra-1" is not host:port`},
		{"a seed without a host", func(c *Config) { c.Seeds = []string{":7946"} }, "the host is neither an address nor a DNS name"},
		{"every IPv6 address, and none to advertise", func(c *Config) { c.Listen = netip.MustParseAddrPort("[::]:7946") }, "listening on [::]:7946 tells the others nothing; set Advertise"},
		{"an address with a zone", func(c *Config) { c.Listen = netip.MustParseAddrPort("[fe80::1%lo]:7946") }, "without a zone"},
		{"nobody's address to advertise", func(c *Config) { c.Advertise = netip.MustParseAddrPort("0.0.0.0:7946") }, "advertising 0.0.0.0 tells the others nothing"},
		{"a network that is none", func(c *Config) { c.Allowed = []netip.Prefix{{}} }, "is not an IPv4 or IPv6 prefix"},
		{"no key", func(c *Config) { c.Keys = Keys{} }, "gossip: the key is missing: without it anybody can read what is said; give 32 bytes"},
		{"a key of 24 bytes", func(c *Config) { c.Keys.Primary = key[:24] }, ""},
		{"a key of 20 bytes", func(c *Config) { c.Keys.Primary = key[:20] }, "key 1 of 1 has 20 bytes; 16, 24 or 32 are allowed"},
		{"an old key of 1 byte", func(c *Config) { c.Keys.Others = [][]byte{key[:1]} }, "key 2 of 2 has 1 bytes; 16, 24 or 32 are allowed"},
		{"a key twice", func(c *Config) { c.Keys.Others = [][]byte{otherKey, key} }, "keys 1 and 3 are the same"},
		{"no fleet", func(c *Config) { c.Fleet = "" }, "the fleet's name has 0 characters; 1 to 255 are allowed"},
		{"nobody to trust", func(c *Config) { c.Trusted = nil }, "no key is trusted, so nobody would be believed"},
		{"a trusted key that is cut", func(c *Config) { c.Trusted[0] = c.Trusted[0][:31] }, "a trusted key has 31 bytes; an Ed25519 public key has 32"},
		{"an announcement that is of no use", func(c *Config) { c.Announcement = Announcement("garbage") }, ""},
		{"labels that do not fit", func(c *Config) {
			c.Self.Labels = make(map[string]string)
			for i := range 8 {
				c.Self.Labels[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", 60)
			}
		}, "gossip: what we tell of ourselves: name, labels and addresses take 597 bytes; gossip carries 448; the largest of 8 labels is key-0 with 67 bytes: shorten or drop some"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := agentConfig("a")
			tt.set(&config)
			_, err := New(config)
			if tt.want == "" && err != nil {
				t.Error(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
