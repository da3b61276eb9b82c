package probe

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Target is what is probed: one port of one host.
type Target struct {
	// Name is what the operator asked for and what results are filed under:
	// "db.fra:5432", or the name of an agent whose responder is meant.
	Name string
	// Host is a DNS name or an IP address without brackets.
	Host string
	Port uint16
}

// MaxTargets bounds the targets of one Spec, so that a slip such as
// "host:1-65535" on forty hosts is refused rather than planned.
const MaxTargets = 1 << 20

// String returns the target's name.
func (t Target) String() string { return t.Name }

// Address returns host:port in the form that net.Dial takes.
func (t Target) Address() string { return joinHostPort(t.Host, t.Port) }

// TargetAt returns the target of that name at an address of the form host:port.
func TargetAt(name, address string) (Target, error) {
	_, ports, err := splitHostPorts(address)
	if err != nil {
		return Target{}, err
	}
	if strings.ContainsAny(ports, ",-") { // not expanded: a message may hold any number of these
		return Target{}, fmt.Errorf("address %q has several ports; one is wanted", address)
	}
	ts, err := ParseTargets(address)
	if err != nil {
		return Target{}, err
	}
	if name != "" {
		ts[0].Name = name
	}
	return ts[0], nil
}

// ErrNoPort is wrapped by ParseTargets when the text names no port. It may
// then be the name of an agent, which only a controller knows.
var ErrNoPort = errors.New("no port")

// ParseTargets reads host:ports, where ports is one port, a list, ranges, or
// any of these together: "db.fra:5432", "10.0.0.2:22,80,8000-8010",
// "[2001:db8::1]:443". The targets come in the order written, 65535 at most.
func ParseTargets(s string) ([]Target, error) {
	host, ports, err := splitHostPorts(s)
	if err != nil {
		return nil, err
	}
	if err := checkHost(host); err != nil {
		return nil, fmt.Errorf("target %q: %w", s, err)
	}
	var ts []Target
	for part := range strings.SplitSeq(ports, ",") {
		lo, hi, err := parsePortRange(part)
		if err != nil {
			return nil, fmt.Errorf("target %q: %w", s, err)
		}
		if len(ts)+int(hi-lo) >= math.MaxUint16 {
			return nil, fmt.Errorf("target %q: more ports are named than the %d that a host has", s, math.MaxUint16)
		}
		for p := int(lo); p <= int(hi); p++ {
			ts = append(ts, Target{Name: joinHostPort(host, uint16(p)), Host: host, Port: uint16(p)})
		}
	}
	return ts, nil
}

// splitHostPorts parts "host:ports" at the colon that ends the host. A bare
// IPv6 address is refused rather than guessed at: its last group could be a port.
func splitHostPorts(s string) (host, ports string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, ports, ok = strings.Cut(rest, "]")
		if !ok {
			return "", "", fmt.Errorf("target %q: '[' without ']'; write [address]:port", s)
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || checkZone(a) != nil {
			return "", "", fmt.Errorf("target %q: %q in brackets is not an IPv6 address", s, host)
		}
		if ports == "" {
			return "", "", noPort(s, s)
		}
		if ports, ok = strings.CutPrefix(ports, ":"); !ok {
			return "", "", fmt.Errorf("target %q: after ']' comes a colon and a port, as in [%s]:443", s, host)
		}
		return host, ports, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() && checkZone(a) == nil {
		return "", "", noPort(s, "["+s+"]")
	}
	host, ports, ok := strings.Cut(s, ":")
	if !ok && checkHost(s) != nil {
		return "", "", noPort(s, "host")
	}
	if !ok {
		return "", "", noPort(s, s)
	}
	if strings.Contains(ports, ":") {
		return "", "", fmt.Errorf("target %q: too many colons; an IPv6 address stands in brackets, as in [2001:db8::1]:443", s)
	}
	return host, ports, nil
}

func noPort(s, host string) error {
	return fmt.Errorf("target %q: %w; write %s:443", s, ErrNoPort, host)
}

func parsePortRange(s string) (lo, hi uint16, err error) {
	first, last, ranged := strings.Cut(s, "-")
	if lo, err = parsePort(first); err != nil {
		return 0, 0, err
	}
	if !ranged {
		return lo, lo, nil
	}
	if hi, err = parsePort(last); err != nil {
		return 0, 0, err
	}
	if hi < lo {
		return 0, 0, fmt.Errorf("port range %q runs backwards; write %d-%d", s, hi, lo)
	}
	return lo, hi, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

// checkHost accepts an IP address or a DNS name (RFC 1123 section 2.1, and
// the underscore that many networks use).
func checkHost(host string) error {
	if host == "" {
		return errors.New("the host is missing before the colon")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if err := checkZone(a); err != nil {
			return err
		}
		plain := a.WithZone("").Unmap()
		if plain.IsUnspecified() || plain.IsMulticast() || plain == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return fmt.Errorf("%s is no host's address; a unicast address is wanted", a)
		}
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 {
		return fmt.Errorf("the host name has %d characters; 253 are allowed", len(name))
	}
	numeric := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("host %q is neither an IP address nor a DNS name", host)
		}
		for _, c := range label {
			if !isNameRune(c) {
				return fmt.Errorf("host %q is neither an IP address nor a DNS name: %q is not allowed", host, c)
			}
		}
		numeric = strings.Trim(label, "0123456789") == ""
	}
	if numeric { // RFC 1123: the last label of a name is never all digits
		return fmt.Errorf("host %q is not an IP address", host)
	}
	return nil
}

// checkZone accepts what names an interface: netip takes any text for a zone,
// but a target's name ends up on terminals and in one line of text.
func checkZone(a netip.Addr) error {
	for _, c := range a.Zone() {
		if c <= ' ' || c > '~' || c == '[' || c == ']' {
			return fmt.Errorf("zone %q of %s is no interface's name: %q is not allowed", a.Zone(), a.WithZone(""), c)
		}
	}
	return nil
}

func isNameRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func joinHostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}
