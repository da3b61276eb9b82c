package gossip

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

var told = map[string]Peer{
	"an agent":                  {Name: "fra-1", Role: Agent, Labels: map[string]string{"rack": "a1", "dc": "fra"}, Responder: "10.0.0.2:7077"},
	"an agent without anything": {Name: "a", Role: Agent, Labels: map[string]string{}},
	"a controller":              {Name: "c", Role: Controller, Labels: map[string]string{}, GRPC: "[2001:db8::1]:7443"},
	"a controller by its name":  {Name: "c.example", Role: Controller, Labels: map[string]string{"dc": "nyc"}, GRPC: "controller.example:443"},
}

func TestMetadataIsReadAsTold(t *testing.T) {
	for name, want := range told {
		t.Run(name, func(t *testing.T) {
			b, err := tell(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseMetadata(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.peer, want) || len(got.signature) > 0 {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestMetadataStaysReadable(t *testing.T) {
	const want = "\x01\x01\x05fra-1\x00\x0d10.0.0.2:7077\x02\x02dc\x03fra\x04rack\x02a1\x00"
	got, err := tell(told["an agent"])
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestSignatureOfALaterVersionIsPassedOver(t *testing.T) {
	b := metadata{told["an agent"], bytes.Repeat([]byte{7}, maxSignature)}.encode()
	m, err := parseMetadata(b)
	if err != nil || !reflect.DeepEqual(m.peer, told["an agent"]) || len(m.signature) != maxSignature {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestMetadataThatIsNotOursIsRefused(t *testing.T) {
	tests := []struct{ name, meta, want string }{
		{"nothing", "", "it ends too early"},
		{"another version", "\x02\x01", "metadata has version 2; only version 1 is known"},
		{"another role", "\x01\x03\x01a\x00\x00\x00\x00", "role(3) is unknown"},
		{"no role", "\x01\x00\x01a\x00\x00\x00\x00", "role(0) is unknown"},
		{"a name that is cut", "\x01\x01\x05fra", "it ends too early"},
		{"no name", "\x01\x01\x00\x00\x00\x00\x00", "the name is missing"},
		{"a name with an escape sequence", "\x01\x01\x04\x1b[2J\x00\x00\x00\x00", `'\x1b' is not allowed in a name`},
		{"something after the end", "\x01\x01\x01a\x00\x00\x00\x00!", "1 bytes follow its end"},
		{"labels that are cut", "\x01\x01\x01a\x00\x00\xff\x01k\x01v", "it ends too early"},
		{"labels out of order", "\x01\x01\x01a\x00\x00\x02\x01k\x01v\x01b\x01v\x00", "not in the order of their keys"},
		{"a label twice", "\x01\x01\x01a\x00\x00\x02\x01k\x01v\x01k\x01w\x00", "not in the order of their keys"},
		{"a label without a key", "\x01\x01\x01a\x00\x00\x01\x00\x01v\x00", "not in the order of their keys"},
		{"a label without a value", "\x01\x01\x01a\x00\x00\x01\x01k\x00\x00", "the value is missing"},
		{"a label called name", "\x01\x01\x01a\x00\x00\x01\x04name\x01v\x00", "choose another"},
		{"a signature beyond its room", "\x01\x01\x01a\x00\x00\x00\x61" + strings.Repeat("x", 97), "the signature has 97 bytes; 96 are allowed"},
		{"an agent with a gRPC address", "\x01\x01\x01a\x03a:1\x00\x00\x00", "an agent has no gRPC address"},
		{"a controller with a responder", "\x01\x02\x01a\x03a:1\x03a:1\x00\x00", "a controller has no responder"},
		{"a controller without an address", "\x01\x02\x01a\x00\x00\x00\x00", `gRPC address: "" is not host:port`},
		{"an address with a line break", "\x01\x02\x01a\x05a\nb:1\x00\x00\x00", "neither an address nor a DNS name"},
		{"an address of nobody", "\x01\x02\x01a\x090.0.0.0:1\x00\x00\x00", "a host's own address is wanted"},
		{"too much", strings.Repeat("x", memberlist.MetaMaxSize+1), "metadata has 513 bytes; 512 are allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := parseMetadata([]byte(tt.meta))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %q", m, err, tt.want)
			}
		})
	}
}

func TestWhatDoesNotFitIsSaid(t *testing.T) {
	labels := make(map[string]string)
	for i := range 8 {
		labels[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", 40)
	}
	labels["kernel"] = strings.Repeat("v", 60)
	_, err := tell(Peer{Name: "fra-1", Role: Agent, Labels: labels})
	const want = "name, labels and addresses take 456 bytes; gossip carries 416; the largest of 9 labels is kernel with 68 bytes: shorten or drop some"
	if err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

func TestWhatFitsIsToldToTheLastByte(t *testing.T) {
	p := Peer{Name: "a", Role: Agent, Labels: make(map[string]string)}
	for i := range 6 {
		p.Labels[fmt.Sprintf("k%d", i)] = strings.Repeat("v", 60)
	}
	p.Labels["last"] = ""
	bare := len(metadata{peer: p}.encode())
	p.Labels["last"] = strings.Repeat("v", maxTold-bare)
	if b, err := tell(p); err != nil || len(b) != maxTold {
		t.Errorf("%d bytes were told: %v", len(b), err)
	}
	over := p.clone()
	over.Labels["last"] += "v"
	if b, err := tell(over); err == nil {
		t.Errorf("%d bytes were told", len(b))
	}
}

// FuzzMetadata feeds the parser what any holder of the key may send. What it
// takes has one form only, and passes the checks that our own must pass.
func FuzzMetadata(f *testing.F) {
	for _, p := range told {
		b, err := tell(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMetadata(b)
		if err != nil {
			return
		}
		if again := m.encode(); !bytes.Equal(again, b) {
			t.Errorf("%q is told as %q", b, again)
		}
		if err := m.peer.check(); err != nil {
			t.Errorf("%q was taken: %v", b, err)
		}
		if p := m.peer.clone(); !maps.Equal(p.Labels, m.peer.Labels) || !equal(p, m.peer) {
			t.Errorf("%+v is not its own copy %+v", m.peer, p)
		}
	})
}
