package convert

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// FromSpec returns the message of a Spec.
func FromSpec(s *probe.Spec) *synmeshv1.ProbeSpec {
	m := &synmeshv1.ProbeSpec{
		Count: int64(s.Count), Interval: durationpb.New(s.Interval), Timeout: durationpb.New(s.Timeout),
		Flows: int32(s.Flows), Family: FromFamily(s.Family), Mode: synmeshv1.Mode(s.Mode) + 1, Retries: int32(s.Retries),
		Poisson: s.Poisson, Jitter: s.Jitter,
	}
	if s.Phase != 0 {
		m.Phase = durationpb.New(s.Phase)
	}
	if s.Sending != (probe.Sending{}) {
		m.Sending = &synmeshv1.Sending{Interface: s.Sending.Interface, Dscp: uint32(s.Sending.DSCP), Ttl: uint32(s.Sending.TTL), Ecn: s.Sending.ECN}
		if s.Sending.Source.IsValid() {
			m.Sending.Source = s.Sending.Source.String()
		}
	}
	for _, t := range s.Targets {
		m.Targets = append(m.Targets, &synmeshv1.Target{Name: t.Name, Address: t.Address()})
	}
	return m
}

// ToSpec returns the Spec of a message, which need not be valid: see Spec.Validate.
// A target without an address takes it from its name.
func ToSpec(m *synmeshv1.ProbeSpec) (probe.Spec, error) {
	s := probe.Spec{
		Count: int(m.GetCount()), Interval: m.GetInterval().AsDuration(), Timeout: m.GetTimeout().AsDuration(),
		Flows: int(m.GetFlows()), Family: ToFamily(m.GetFamily()), Mode: ToMode(m.GetMode()), Retries: int(m.GetRetries()),
		Poisson: m.GetPoisson(), Jitter: m.GetJitter(), Phase: m.GetPhase().AsDuration(),
	}
	var err error
	if s.Sending, err = toSending(m.GetSending()); err != nil {
		return probe.Spec{}, err
	}
	for i, t := range m.GetTargets() {
		address := t.GetAddress()
		if address == "" {
			address = t.GetName()
		}
		target, err := probe.TargetAt(t.GetName(), address)
		if err != nil {
			return probe.Spec{}, fmt.Errorf("targets[%d]: %w", i, err)
		}
		s.Targets = append(s.Targets, target)
	}
	return s, nil
}

func toSending(m *synmeshv1.Sending) (probe.Sending, error) {
	s := probe.Sending{Interface: m.GetInterface(), TTL: uint8(m.GetTtl()), ECN: m.GetEcn()}
	if m.GetDscp() > 63 || m.GetTtl() > 255 {
		return s, fmt.Errorf("sending: DSCP %d or TTL %d is too large; they end at 63 and 255", m.GetDscp(), m.GetTtl())
	}
	s.DSCP = uint8(m.GetDscp())
	if m.GetSource() == "" {
		return s, nil
	}
	var err error
	if s.Source, err = netip.ParseAddr(m.GetSource()); err != nil {
		return s, fmt.Errorf("sending: source %q is not an IP address", m.GetSource())
	}
	return s, nil
}

// FromFamily returns the enumeration value of a family.
func FromFamily(f probe.Family) synmeshv1.AddressFamily {
	switch f {
	case probe.IPv4:
		return synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV4
	case probe.IPv6:
		return synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV6
	}
	return synmeshv1.AddressFamily_ADDRESS_FAMILY_UNSPECIFIED
}

// ToFamily returns the family of an enumeration value.
func ToFamily(f synmeshv1.AddressFamily) probe.Family {
	switch f {
	case synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV4:
		return probe.IPv4
	case synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV6:
		return probe.IPv6
	}
	return probe.AnyFamily
}

// ToMode returns the mode of an enumeration value. One that is unknown becomes
// a mode that Spec.Validate refuses.
func ToMode(m synmeshv1.Mode) probe.Mode {
	switch {
	case m == synmeshv1.Mode_MODE_UNSPECIFIED:
		return probe.HalfOpen
	case m < 0 || m > synmeshv1.Mode_MODE_CONNECT:
		return probe.Connect + 1
	}
	return probe.Mode(m - 1)
}
