package rawsock

import (
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control returns a control message as the kernel lays it out.
func control(level, kind int32, words ...int64) []byte {
	size := len(words) * 8
	b := make([]byte, unix.CmsgSpace(size))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	copy(b[unix.CmsgLen(0):], unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size))
	return b
}

func TestStampsAreFoundAmongControlMessages(t *testing.T) {
	const seconds, nanos = 1_795_201_971, 369_785_123
	stamp := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos)
	three := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos, 0, 0, 0, 0)
	other := control(unix.IPPROTO_IP, unix.IP_RECVERR, 1, 2, 3)
	odd := control(unix.IPPROTO_IP, unix.IP_TTL, 64)[:unix.CmsgLen(4)] // the last may lack its padding
	cut := slices.Clone(stamp)
	(*unix.Cmsghdr)(unsafe.Pointer(&cut[0])).SetLen(len(cut) + 1)
	tiny := slices.Clone(stamp)
	(*unix.Cmsghdr)(unsafe.Pointer(&tiny[0])).SetLen(unix.SizeofCmsghdr - 1)
	for _, tt := range []struct {
		name    string
		control []byte
		want    int64
	}{
		{"of a received packet", stamp, seconds*1e9 + nanos},
		{"of a sent packet", three, seconds*1e9 + nanos},
		{"behind another message", slices.Concat(other, stamp), seconds*1e9 + nanos},
		{"ahead of another message", slices.Concat(three, other), seconds*1e9 + nanos},
		{"none at all", nil, 0},
		{"none among others", slices.Concat(other, odd), 0},
		{"of hardware only", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, 0, 0, 0, 0, seconds, nanos), 0},
		{"of another level", control(unix.IPPROTO_IP, unix.SCM_TIMESTAMPING, seconds, nanos), 0},
		{"too short to hold one", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds), 0},
		{"longer than what was received", cut, 0},
		{"shorter than its own header", slices.Concat(tiny, stamp), 0},
		{"a header cut short", stamp[:unix.SizeofCmsghdr-1], 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := stampOf(tt.control); got*btoi(ok) != tt.want || ok != (tt.want != 0) {
				t.Errorf("stampOf = %d, %t, want %d", got, ok, tt.want)
			}
		})
	}
}

func btoi(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// The kernel finds the second message where its own structure would end.
func TestMessagesLieWhereTheKernelLooks(t *testing.T) {
	const word = unsafe.Sizeof(uintptr(0))
	want := (unsafe.Sizeof(unix.Msghdr{}) + 4 + word - 1) / word * word
	if got := unsafe.Sizeof(mmsghdr{}); got != want {
		t.Errorf("struct mmsghdr has %d bytes, want %d", got, want)
	}
}
