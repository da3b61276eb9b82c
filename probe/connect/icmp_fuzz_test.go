//go:build linux

package connect

import (
	"encoding/binary"
	"syscall"
	"testing"
)

// FuzzParseError reads whatever the error queue may hold. An error has a
// sender, and is about the SYN.
func FuzzParseError(f *testing.F) {
	head := func(origin, kind, code byte, family uint16) []byte {
		return binary.NativeEndian.AppendUint16([]byte{113, 0, 0, 0, origin, kind, code, 15: 0}, family)
	}
	v4 := append(head(originICMP, 3, 1, syscall.AF_INET), make([]byte, syscall.SizeofSockaddrInet4-2)...)
	v6 := append(head(originICMP6, 1, 3, syscall.AF_INET6), make([]byte, syscall.SizeofSockaddrInet6-2)...)
	for _, b := range [][]byte{v4, v4[:len(v4)-1], v6, v6[:len(v6)-1], head(originICMP, 3, 4, syscall.AF_INET), head(originICMP6, 2, 0, 0), head(1, 0, 0, 0), v4[:16], nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		icmp, err := parseError(b)
		switch {
		case err != nil && icmp != nil:
			t.Errorf("%+v beside the error %v", icmp, err)
		case icmp == nil:
		case !icmp.From.IsValid() || icmp.Type != b[5] || icmp.Code != b[6]:
			t.Errorf("%x is read as %+v", b, icmp)
		case b[4] == originICMP && icmp.Type == 3 && icmp.Code == 4, b[4] == originICMP6 && icmp.Type == 2:
			t.Errorf("%x tells of an MTU, and is taken for %+v", b, icmp)
		}
	})
}
