package packet

import "strconv"

// ICMPReason returns what an ICMP error (ICMPv6 if v6) says, in a few words
// such as "host unreachable". The words are those of the RFCs that gave out the
// codes, and are there for people; programs compare type and code.
func ICMPReason(v6 bool, typ, code uint8) string {
	name, codes := icmpText(v6, typ)
	if int(code) < len(codes) {
		return codes[code]
	}
	if name == "" {
		name = "ICMP"
		if v6 {
			name = "ICMPv6"
		}
		name += " type " + strconv.Itoa(int(typ))
	}
	return name + ", code " + strconv.Itoa(int(code))
}

// icmpText returns the name of a type and the texts of its codes from 0 on.
func icmpText(v6 bool, typ uint8) (name string, codes []string) {
	if v6 {
		switch typ {
		case icmpv6Unreachable:
			return "destination unreachable", icmpv6UnreachableText[:]
		case icmpv6TooBig:
			return "packet too big", icmpv6TooBigText[:]
		case icmpv6TimeExceeded:
			return "time exceeded", icmpv6TimeExceededText[:]
		case icmpv6Parameter:
			return "parameter problem", icmpv6ParameterText[:]
		}
		return "", nil
	}
	switch typ {
	case icmpUnreachable:
		return "destination unreachable", icmpUnreachableText[:]
	case icmpSourceQuench:
		return "source quench", icmpSourceQuenchText[:]
	case icmpTimeExceeded:
		return "time exceeded", icmpTimeExceededText[:]
	case icmpParameter:
		return "parameter problem", icmpParameterText[:]
	}
	return "", nil
}

// RFC 792, RFC 1122 (section 3.2.2.1), RFC 1812 (section 5.2.7.1).
var icmpUnreachableText = [...]string{
	0:  "network unreachable",
	1:  "host unreachable",
	2:  "protocol unreachable",
	3:  "port unreachable",
	4:  "fragmentation needed",
	5:  "source route failed",
	6:  "network unknown",
	7:  "host unknown",
	8:  "source host isolated",
	9:  "network prohibited",
	10: "host prohibited",
	11: "network unreachable for this service",
	12: "host unreachable for this service",
	13: "admin prohibited",
	14: "host precedence violation",
	15: "precedence cutoff",
}

// RFC 792, RFC 1108 and RFC 1812.
var (
	icmpSourceQuenchText = [...]string{"source quench"}
	icmpTimeExceededText = [...]string{"TTL exceeded", "reassembly time exceeded"}
	icmpParameterText    = [...]string{"bad header field", "missing option", "bad length"}
)

// RFC 4443, section 3.1; RFC 6550 (code 7); RFC 8883 (code 8).
var icmpv6UnreachableText = [...]string{
	0: "no route",
	1: "admin prohibited",
	2: "beyond scope of source address",
	3: "address unreachable",
	4: "port unreachable",
	5: "source address failed policy",
	6: "route rejected",
	7: "bad source routing header",
	8: "headers too long",
}

// RFC 4443, sections 3.2 and 3.3.
var (
	icmpv6TooBigText       = [...]string{"packet too big"}
	icmpv6TimeExceededText = [...]string{"hop limit exceeded", "reassembly time exceeded"}
)

// RFC 4443, section 3.4; RFC 7112 (code 3); RFC 8754 (code 4); RFC 8883 (codes 5 to 10).
var icmpv6ParameterText = [...]string{
	0:  "bad header field",
	1:  "unknown next header",
	2:  "unknown option",
	3:  "incomplete header chain in first fragment",
	4:  "bad upper-layer header behind segment routing",
	5:  "next header unknown on the way",
	6:  "extension header too big",
	7:  "extension header chain too long",
	8:  "too many extension headers",
	9:  "too many options in extension header",
	10: "option too big",
}
