package probe

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names returns the targets as the operator sees them.
func names(ts []Target) []string {
	var all []string
	for _, t := range ts {
		all = append(all, t.String())
	}
	return all
}

func TestTargetsAreReadInTheOrderWritten(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []Target
	}{
		{"a DNS name and a port", "db.fra:5432", []Target{{"db.fra:5432", "db.fra", 5432}}},
		{"a name of one label", "db:1", []Target{{"db:1", "db", 1}}},
		{"a name that ends in a dot is rooted", "db.fra.:80", []Target{{"db.fra.:80", "db.fra.", 80}}},
		{"a name may have underscores", "_sip._tcp.fra:5060", []Target{{"_sip._tcp.fra:5060", "_sip._tcp.fra", 5060}}},
		{"a name may begin with digits", "3com.example:80", []Target{{"3com.example:80", "3com.example", 80}}},
		{"the case of a name is kept", "DB.fra:80", []Target{{"DB.fra:80", "DB.fra", 80}}},
		{"an IPv4 address", "10.0.0.2:22", []Target{{"10.0.0.2:22", "10.0.0.2", 22}}},
		{"an IPv6 address in brackets", "[2001:db8::1]:443", []Target{{"[2001:db8::1]:443", "2001:db8::1", 443}}},
		{"an IPv6 address with a zone", "[fe80::1%eth0.100]:443", []Target{{"[fe80::1%eth0.100]:443", "fe80::1%eth0.100", 443}}},
		{"the highest port", "h:65535", []Target{{"h:65535", "h", 65535}}},
		{"a list of ports", "h:443,80,22", []Target{{"h:443", "h", 443}, {"h:80", "h", 80}, {"h:22", "h", 22}}},
		{"a range of ports", "h:8000-8002", []Target{{"h:8000", "h", 8000}, {"h:8001", "h", 8001}, {"h:8002", "h", 8002}}},
		{"a range of one port", "h:80-80", []Target{{"h:80", "h", 80}}},
		{"a range up to the highest port", "h:65534-65535", []Target{{"h:65534", "h", 65534}, {"h:65535", "h", 65535}}},
		{"a list with a range", "[::1]:22,80-81", []Target{{"[::1]:22", "::1", 22}, {"[::1]:80", "::1", 80}, {"[::1]:81", "::1", 81}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTargets(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("ParseTargets(%q) (-want +got):\n%s", tt.text, d)
			}
		})
	}
}

func TestAllPortsOfAHostAreTargets(t *testing.T) {
	ts, err := ParseTargets("h:1-65535")
	if err != nil {
		t.Fatal(err)
	}
	if len(ts) != 65535 || ts[0].Port != 1 || ts[65534].Port != 65535 {
		t.Errorf("%d targets from %v to %v, want 65535 from h:1 to h:65535", len(ts), ts[0], ts[len(ts)-1])
	}
}

func TestTextThatIsNoTargetIsRefusedInOneLine(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", `target "": no port; write host:443`},
		{"no port", "db.fra", `target "db.fra": no port; write db.fra:443`},
		{"no port after an IPv4 address", "10.0.0.2", `target "10.0.0.2": no port; write 10.0.0.2:443`},
		{"no port after brackets", "[::1]", `target "[::1]": no port; write [::1]:443`},
		{"an IPv6 address without brackets", "2001:db8::1", `target "2001:db8::1": no port; write [2001:db8::1]:443`},
		{"an IPv6 address without brackets whose last group may be a port", "::1:443", `target "::1:443": no port; write [::1:443]:443`},
		{"no port and no host either", "a\nb", `target "a\nb": no port; write host:443`},
		{"no host", ":443", `target ":443": the host is missing before the colon`},
		{"an empty port", "h:", `target "h:": port "" is not a number from 1 to 65535`},
		{"port 0", "h:0", `target "h:0": port "0" is not a number from 1 to 65535`},
		{"a port above the highest", "h:65536", `target "h:65536": port "65536" is not a number from 1 to 65535`},
		{"a port above all numbers", "h:99999999999999999999", `target "h:99999999999999999999": port "99999999999999999999" is not a number from 1 to 65535`},
		{"a port by its name", "h:https", `target "h:https": port "https" is not a number from 1 to 65535`},
		{"a port with a sign", "h:+80", `target "h:+80": port "+80" is not a number from 1 to 65535`},
		{"a space before the port", "h: 80", `target "h: 80": port " 80" is not a number from 1 to 65535`},
		{"a list that ends in a comma", "h:80,", `target "h:80,": port "" is not a number from 1 to 65535`},
		{"a range without an end", "h:80-", `target "h:80-": port "" is not a number from 1 to 65535`},
		{"a range without a start", "h:-80", `target "h:-80": port "" is not a number from 1 to 65535`},
		{"a range of three", "h:1-2-3", `target "h:1-2-3": port "2-3" is not a number from 1 to 65535`},
		{"a range that runs backwards", "h:90-80", `target "h:90-80": port range "90-80" runs backwards; write 80-90`},
		{"more ports than there are", "h:1-65535,80", `target "h:1-65535,80": more ports are named than the 65535 that a host has`},
		{"too many colons", "db:fra:5432", `target "db:fra:5432": too many colons; an IPv6 address stands in brackets, as in [2001:db8::1]:443`},
		{"a bracket that is not closed", "[::1:443", `target "[::1:443": '[' without ']'; write [address]:port`},
		{"no colon after the brackets", "[::1]443", `target "[::1]443": after ']' comes a colon and a port, as in [::1]:443`},
		{"an IPv4 address in brackets", "[10.0.0.2]:80", `target "[10.0.0.2]:80": "10.0.0.2" in brackets is not an IPv6 address`},
		{"a name in brackets", "[db]:80", `target "[db]:80": "db" in brackets is not an IPv6 address`},
		{"a zone that would break the line", "[fe80::1%a\nb]:80", `target "[fe80::1%a\nb]:80": "fe80::1%a\nb" in brackets is not an IPv6 address`},
		{"a URL", "https://db.fra:443", `target "https://db.fra:443": too many colons; an IPv6 address stands in brackets, as in [2001:db8::1]:443`},
		{"a space in a name", "db fra:80", `target "db fra:80": host "db fra" is neither an IP address nor a DNS name: ' ' is not allowed`},
		{"a letter that DNS does not have", "müller:80", `target "müller:80": host "müller" is neither an IP address nor a DNS name: 'ü' is not allowed`},
		{"a label that begins with a dash", "-db:80", `target "-db:80": host "-db" is neither an IP address nor a DNS name`},
		{"a label that ends in a dash", "db-.fra:80", `target "db-.fra:80": host "db-.fra" is neither an IP address nor a DNS name`},
		{"an empty label", "db..fra:80", `target "db..fra:80": host "db..fra" is neither an IP address nor a DNS name`},
		{"a dot alone", ".:80", `target ".:80": host "." is neither an IP address nor a DNS name`},
		{"a label of 64 characters", long + ":80", `target "` + long + `:80": host "` + long + `" is neither an IP address nor a DNS name`},
		{"an IPv4 address with a part missing", "10.0.2:80", `target "10.0.2:80": host "10.0.2" is not an IP address`},
		{"an IPv4 address out of bounds", "10.0.0.256:80", `target "10.0.0.256:80": host "10.0.0.256" is not an IP address`},
		{"a number", "10:80", `target "10:80": host "10" is not an IP address`},
		{"the unspecified address", "0.0.0.0:80", `target "0.0.0.0:80": 0.0.0.0 is no host's address; a unicast address is wanted`},
		{"the unspecified IPv6 address", "[::]:80", `target "[::]:80": :: is no host's address; a unicast address is wanted`},
		{"the unspecified IPv6 address with a zone", "[::%eth0]:80", `target "[::%eth0]:80": ::%eth0 is no host's address; a unicast address is wanted`},
		{"the broadcast address", "255.255.255.255:80", `target "255.255.255.255:80": 255.255.255.255 is no host's address; a unicast address is wanted`},
		{"the broadcast address in an IPv6 one", "[::ffff:255.255.255.255]:80", `target "[::ffff:255.255.255.255]:80": ::ffff:255.255.255.255 is no host's address; a unicast address is wanted`},
		{"a multicast address", "224.0.0.1:80", `target "224.0.0.1:80": 224.0.0.1 is no host's address; a unicast address is wanted`},
		{"an IPv6 multicast address", "[ff02::1]:80", `target "[ff02::1]:80": ff02::1 is no host's address; a unicast address is wanted`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTargets(tt.text)
			if err == nil {
				t.Fatalf("ParseTargets(%q) = %v, want an error", tt.text, got)
			}
			if err.Error() != tt.want {
				t.Errorf("ParseTargets(%q) says\n%s\nwant\n%s", tt.text, err, tt.want)
			}
			if wrapped, want := errors.Is(err, ErrNoPort), strings.Contains(tt.want, ": no port;"); wrapped != want {
				t.Errorf("the error wraps ErrNoPort: %t, want %t", wrapped, want)
			}
		})
	}
}

func TestAHostNameHasAtMost253Characters(t *testing.T) {
	label := strings.Repeat("a", 61) + "."
	fits := strings.Repeat(label, 4) + "fra.x"
	if len(fits) != 253 {
		t.Fatalf("the name has %d characters", len(fits))
	}
	for _, text := range []string{fits + ":80", fits + ".:80"} {
		if _, err := ParseTargets(text); err != nil {
			t.Errorf("ParseTargets(%q): %v", text, err)
		}
	}
	_, err := ParseTargets("b" + fits + ":80")
	if err == nil || !strings.HasSuffix(err.Error(), ": the host name has 254 characters; 253 are allowed") {
		t.Errorf("a name of 254 characters: %v", err)
	}
}

func TestAnAgentsTargetKeepsItsName(t *testing.T) {
	for _, tt := range []struct {
		name, target, address string
		want                  Target
	}{
		{"the name stands apart from the address", "fra-1", "10.0.0.2:7", Target{"fra-1", "10.0.0.2", 7}},
		{"without a name the address is it", "", "[::1]:7", Target{"[::1]:7", "::1", 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := TargetAt(tt.target, tt.address)
			if err != nil || got != tt.want {
				t.Errorf("TargetAt(%q, %q) = %+v, %v, want %+v", tt.target, tt.address, got, err, tt.want)
			}
		})
	}
}

func TestAnAgentsAddressThatIsNoneIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, address, want string }{
		{"several ports", "h:1,2", `address "h:1,2" has several ports; one is wanted`},
		{"a range of ports", "h:1-65535", `address "h:1-65535" has several ports; one is wanted`},
		{"no port", "h", `target "h": no port; write h:443`},
		{"a wrong port", "h:x", `target "h:x": port "x" is not a number from 1 to 65535`},
		{"a wrong host", "a b:1", `target "a b:1": host "a b" is neither an IP address nor a DNS name: ' ' is not allowed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := TargetAt("fra-1", tt.address)
			if err == nil || err.Error() != tt.want || got != (Target{}) {
				t.Errorf("TargetAt = %+v, %v, want the error %s", got, err, tt.want)
			}
		})
	}
}

func TestAnAddressIsWhatNetTakes(t *testing.T) {
	for _, host := range []string{"db.fra", "10.0.0.2", "2001:db8::1", "fe80::1%eth0"} {
		target := Target{Name: "fra-1", Host: host, Port: 443}
		gotHost, port, err := net.SplitHostPort(target.Address())
		if err != nil || gotHost != host || port != "443" {
			t.Errorf("Address() = %q, which net splits into %q and %q (%v)", target.Address(), gotHost, port, err)
		}
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		ts, err := ParseTargets(text)
		if err != nil {
			if ts != nil {
				t.Fatalf("%v beside the error %v", names(ts), err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("the error is not one plain line: %q", err)
			}
			return
		}
		if len(ts) == 0 || len(ts) > 65535 {
			t.Fatalf("%d targets", len(ts))
		}
		// Thousands of ports of one host go the same way.
		for _, target := range slices.Compact([]Target{ts[0], ts[len(ts)/2], ts[len(ts)-1]}) {
			again, err := ParseTargets(target.Name)
			if err != nil || len(again) != 1 || again[0] != target {
				t.Fatalf("%q has %+v, which is read as %+v, %v", text, target, again, err)
			}
			if one, err := TargetAt("", target.Address()); err != nil || one != target {
				t.Fatalf("%+v is at %q, which is read as %+v, %v", target, target.Address(), one, err)
			}
			host, port, err := net.SplitHostPort(target.Address())
			if err != nil || host != target.Host || port != strconv.Itoa(int(target.Port)) {
				t.Fatalf("net splits %q into %q and %q (%v)", target.Address(), host, port, err)
			}
			if a, err := netip.ParseAddr(target.Host); err == nil && (a.IsMulticast() || a.Unmap().IsUnspecified()) {
				t.Fatalf("%v is no host's address", a)
			}
			spec := validSpec()
			spec.Targets = []Target{target}
			if err := spec.Validate(); err != nil {
				t.Fatalf("a Spec of %+v: %v", target, err)
			}
		}
	})
}
