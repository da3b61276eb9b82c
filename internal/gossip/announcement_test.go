package gossip

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

var said = map[string]Peer{
	"an agent":                  {Name: "fra-1", Role: Agent, Labels: map[string]string{"rack": "a1", "dc": "fra"}, Responder: "10.0.0.2:7077", Addr: netip.MustParseAddrPort("10.0.0.2:7946")},
	"an agent without anything": {Name: "a", Role: Agent, Labels: map[string]string{}, Addr: netip.MustParseAddrPort("10.0.0.2:1")},
	"a controller":              {Name: "c", Role: Controller, Labels: map[string]string{}, GRPC: "[2001:db8::1]:7443", Addr: netip.MustParseAddrPort("[2001:db8::1]:7946")},
	"a controller by its name":  {Name: "c.example", Role: Controller, Labels: map[string]string{"dc": "nyc"}, GRPC: "controller.example:443", Addr: netip.MustParseAddrPort("10.0.0.2:65535")},
}

// stated is what is said of p, between two times that never change.
func stated(p Peer) statement {
	return statement{peer: p, issued: time.Unix(1_800_000_000, 7), notAfter: time.Unix(1_800_086_400, 0)}
}

func TestAnnouncementIsReadAsMade(t *testing.T) {
	for name, want := range said {
		t.Run(name, func(t *testing.T) {
			until := time.Now().Add(time.Hour)
			a, err := Announce(want, fleetName, until, signer)
			if err != nil {
				t.Fatal(err)
			}
			got, unsigned, err := parseAnnouncement(a)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.peer, want) || got.key != idOf(public(signer)) || len(a)-unsigned != ed25519.SignatureSize {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if end, err := a.NotAfter(); err != nil || !end.Equal(until.Truncate(time.Second)) {
				t.Errorf("it ends at %v, %v, want %v", end, err, until)
			}
		})
	}
}

func TestAnnouncementStaysReadable(t *testing.T) {
	a, err := announce(stated(said["an agent"]), fleetName, signer)
	if err != nil {
		t.Fatal(err)
	}
	const want = "\x02\x01\x05fra-1\x00\x0d10.0.0.2:7077\x02\x02dc\x03fra\x04rack\x02a1\x06\x0a\x00\x00\x02\x1f\x0a" +
		"\x18\xfa\xe2\x76\x93\xb4\x00\x07\x00\x00\x00\x00\x6b\x4b\x23\x80"
	id := idOf(public(signer))
	if !bytes.HasPrefix(a, append([]byte(want), id[:]...)) {
		t.Errorf("got %q, want %q", a, want)
	}
	message := signatureContext + "\x07fleet-1" + want + string(id[:])
	if !ed25519.Verify(public(signer), []byte(message), a[len(a)-ed25519.SignatureSize:]) {
		t.Error("what is signed has changed: nobody of before would believe it")
	}
}

func TestAnnouncementThatIsNotOursIsRefused(t *testing.T) {
	const (
		address = "\x06\x0a\x00\x00\x02\x1f\x0a"
		times   = "\x18\xfa\xe2\x76\x93\xb4\x00\x07\x00\x00\x00\x00\x6b\x4b\x23\x80"
	)
	end := times + strings.Repeat("k", keyIDSize) + strings.Repeat("s", ed25519.SignatureSize)
	rest := address + end
	tests := []struct{ name, told, want string }{
		{"nothing", "", "it ends too early"},
		{"an earlier version", "\x01\x01", "it has version 1; only version 2 is known"},
		{"another role", "\x02\x03\x01a\x00\x00\x00" + rest, "role(3) is unknown"},
		{"no role", "\x02\x00\x01a\x00\x00\x00" + rest, "role(0) is unknown"},
		{"a name that is cut", "\x02\x01\x05fra", "it ends too early"},
		{"no name", "\x02\x01\x00\x00\x00\x00" + rest, "the name is missing"},
		{"a name with an escape sequence", "\x02\x01\x04\x1b[2J\x00\x00\x00" + rest, `'\x1b' is not allowed in a name`},
		{"something after the end", "\x02\x01\x01a\x00\x00\x00" + rest + "!", "1 bytes follow its end"},
		{"a signature that is cut", "\x02\x01\x01a\x00\x00\x00" + rest[:len(rest)-1], "it ends too early"},
		{"labels that are cut", "\x02\x01\x01a\x00\x00\xff\x01k\x01v", "it ends too early"},
		{"labels out of order", "\x02\x01\x01a\x00\x00\x02\x01k\x01v\x01b\x01v" + rest, "not in the order of their keys"},
		{"a label twice", "\x02\x01\x01a\x00\x00\x02\x01k\x01v\x01k\x01w" + rest, "not in the order of their keys"},
		{"a label without a key", "\x02\x01\x01a\x00\x00\x01\x00\x01v" + rest, "not in the order of their keys"},
		{"a label without a value", "\x02\x01\x01a\x00\x00\x01\x01k\x00" + rest, "the value is missing"},
		{"a label called name", "\x02\x01\x01a\x00\x00\x01\x04name\x01v" + rest, "choose another"},
		{"an agent with a gRPC address", "\x02\x01\x01a\x03a:1\x00\x00" + rest, "an agent has no gRPC address"},
		{"a controller with a responder", "\x02\x02\x01a\x03a:1\x03a:1\x00" + rest, "a controller has no responder"},
		{"a controller without an address", "\x02\x02\x01a\x00\x00\x00" + rest, `gRPC address: "" is not host:port`},
		{"an address with a line break", "\x02\x02\x01a\x05a\nb:1\x00\x00" + rest, "neither an address nor a DNS name"},
		{"an address of nobody", "\x02\x02\x01a\x090.0.0.0:1\x00\x00" + rest, "a host's own address is wanted"},
		{"no gossip address", "\x02\x01\x01a\x00\x00\x00\x00" + end, "its gossip address has 0 bytes"},
		{"a gossip address of 5 bytes", "\x02\x01\x01a\x00\x00\x00\x05\x0a\x00\x00\x02\x1f" + end, "its gossip address has 5 bytes"},
		{"no gossip port", "\x02\x01\x01a\x00\x00\x00\x06\x0a\x00\x00\x02\x00\x00" + end, "its gossip address is no host's"},
		{"an IPv4 address dressed as IPv6", "\x02\x01\x01a\x00\x00\x00\x12" + strings.Repeat("\x00", 10) + "\xff\xff\x0a\x00\x00\x02\x1f\x0a" + end, "its gossip address is no host's"},
		{"times beyond the clock", "\x02\x01\x01a\x00\x00\x00" + address + strings.Repeat("\xff", 16) + end[16:], "beyond what a clock can show"},
		{"an end before the issue", "\x02\x01\x01a\x00\x00\x00" + address + times[:8] + strings.Repeat("\x00", 8) + end[16:], "it has to be issued before it ends"},
		{"too much", strings.Repeat("x", memberlist.MetaMaxSize+1), "it has 513 bytes; 512 are allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, err := parseAnnouncement([]byte(tt.told))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %q", s, err, tt.want)
			}
		})
	}
}

// brokenSigner signs nothing that holds.
type brokenSigner struct{ err error }

func (brokenSigner) Public() crypto.PublicKey { return public(signer) }

func (b brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, ed25519.SignatureSize), b.err
}

func TestWhatCannotBeAnnouncedIsSaid(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	labels := make(map[string]string)
	for i := range 8 {
		labels[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", 44)
	}
	labels["kernel"] = strings.Repeat("v", 60)
	agent := said["an agent"]
	change := func(set func(*Peer)) Peer { p := agent.clone(); set(&p); return p }
	tests := []struct {
		name  string
		peer  Peer
		fleet string
		valid time.Duration
		by    crypto.Signer
		want  string
	}{
		{"a bad name", change(func(p *Peer) { p.Name = "a b" }), fleetName, time.Hour, signer, `gossip: announcing "a b": name "a b": ' ' is not allowed`},
		{"no gossip address", change(func(p *Peer) { p.Addr = netip.AddrPort{} }), fleetName, time.Hour, signer, "its gossip address is no host's"},
		{"no fleet", agent, "", time.Hour, signer, "the fleet's name has 0 characters; 1 to 255 are allowed"},
		{"a fleet of 256 characters", agent, strings.Repeat("f", 256), time.Hour, signer, "the fleet's name has 256 characters"},
		{"an end that has passed", agent, fleetName, -time.Second, signer, "it has to be issued before it ends"},
		{"an end that cannot be told", agent, fleetName, 100 * 365 * 24 * time.Hour, signer, "the year 2106 is the last"},
		{"another kind of key", agent, fleetName, time.Hour, other, "the signing key is a *ecdsa.PublicKey; Ed25519 is wanted"},
		{"a key that does not sign", agent, fleetName, time.Hour, brokenSigner{io.ErrUnexpectedEOF}, "signing: unexpected EOF"},
		{"a key that signs wrongly", agent, fleetName, time.Hour, brokenSigner{}, "the signature does not hold for the signer's own public key"},
		{"too many labels", change(func(p *Peer) { p.Labels = labels }), fleetName, time.Hour, signer,
			"name, labels and addresses take 531 bytes; gossip carries 448; the largest of 9 labels is kernel with 68 bytes: shorten or drop some"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Announce(tt.peer, tt.fleet, time.Now().Add(tt.valid), tt.by)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("\n got %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestWhatFitsIsToldToTheLastByte(t *testing.T) {
	p := said["an agent without anything"].clone()
	for i := range 6 {
		p.Labels[fmt.Sprintf("k%d", i)] = strings.Repeat("v", 55)
	}
	p.Labels["last"] = "v"
	b, err := stated(p).encode()
	if err != nil {
		t.Fatal(err)
	}
	p.Labels["last"] += strings.Repeat("v", maxUnsigned-len(b))
	if a, err := announce(stated(p), fleetName, signer); err != nil || len(a) != memberlist.MetaMaxSize {
		t.Errorf("%d bytes were told: %v", len(a), err)
	}
	p.Labels["last"] += "v"
	if a, err := announce(stated(p), fleetName, signer); err == nil {
		t.Errorf("%d bytes were told", len(a))
	}
}

// FuzzAnnouncement feeds the parser what any holder of the key may send. What
// it takes has one form only, and passes the checks that our own must pass.
func FuzzAnnouncement(f *testing.F) {
	for _, p := range said {
		a, err := announce(stated(p), fleetName, signer)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(a))
		f.Add([]byte(a[:len(a)-65]))
	}
	f.Add([]byte("\x02\x01\x01a\x00\x00\xff\x01k\x01v"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, unsigned, err := parseAnnouncement(b)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil || !bytes.Equal(again, b[:unsigned]) || len(b)-unsigned != ed25519.SignatureSize {
			t.Errorf("%q is told as %q, %v", b, again, err)
		}
		if p := s.peer.clone(); !maps.Equal(p.Labels, s.peer.Labels) || !equal(p, s.peer) {
			t.Errorf("%+v is not its own copy %+v", s.peer, p)
		}
	})
}
