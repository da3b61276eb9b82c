package convert

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// FuzzSpec reads what a controller may ask an agent to do. What is valid is
// read back as it was written.
func FuzzSpec(f *testing.F) {
	plain := probe.Spec{Targets: []probe.Target{{Name: "db.fra:5432", Host: "db.fra", Port: 5432}}, Count: 10,
		Interval: probe.DefaultInterval, Timeout: probe.DefaultTimeout, Flows: 1}
	special := plain
	special.Targets = []probe.Target{{Name: "fra-1", Host: "fe80::1%eth0", Port: 443}, {Name: "10.0.0.2:1", Host: "10.0.0.2", Port: 1}}
	special.Mode, special.Retries, special.Family, special.Poisson = probe.Full, 3, probe.IPv6, true
	special.Sending = probe.Sending{Source: netip.MustParseAddr("2001:db8::2"), Interface: "eth0", DSCP: 46, TTL: 9, ECN: true}
	nothing := probe.Spec{}
	for _, s := range []probe.Spec{plain, special, nothing} {
		b, err := proto.Marshal(FromSpec(&s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m synmeshv1.ProbeSpec
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		s, err := ToSpec(&m)
		if err == nil {
			err = s.Validate()
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error is more than one line: %v", err)
			}
			return
		}
		again, err := ToSpec(FromSpec(&s))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%+v is read again as %+v: %v", s, again, err)
		}
	})
}
