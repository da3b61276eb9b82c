package rawsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct mmsghdr, which x/sys does not have.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// sendmmsg returns how many messages were sent, or why the first was not. It
// waits only where there is no room.
func sendmmsg(fd int, msgs []mmsghdr) (int, error) {
	n, err := mmsg(unix.SYS_SENDMMSG, fd, msgs, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	if err != unix.EAGAIN {
		return n, err
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// recvmmsg returns how many messages are waiting, without waiting itself.
func recvmmsg(fd int, msgs []mmsghdr, flags int) (int, error) {
	return mmsg(unix.SYS_RECVMMSG, fd, msgs, flags|unix.MSG_DONTWAIT)
}

// mmsg makes a system call that does not wait. The runtime is not told of it:
// it would wake up its monitor each time, which then looks in every 20
// microseconds for a while, at the price of a third of an agent's processor time.
func mmsg(trap uintptr, fd int, msgs []mmsghdr, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// inbox is room for a batch of received messages, all of one size.
type inbox struct {
	msgs    []mmsghdr
	iovs    []unix.Iovec
	data    []byte
	control []byte
	names   []byte // empty if nobody asks where from
}

const (
	batchLen   = 64
	controlLen = 256
	nameLen    = unix.SizeofSockaddrInet6 // the largest that is asked for
)

// newInbox makes room for messages of so many bytes.
func newInbox(dataLen int) *inbox {
	b := &inbox{
		msgs: make([]mmsghdr, batchLen), iovs: make([]unix.Iovec, batchLen),
		data: make([]byte, batchLen*dataLen), control: make([]byte, batchLen*controlLen),
	}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*dataLen]
		b.iovs[i].SetLen(dataLen)
		h := &b.msgs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.control[i*controlLen]
	}
	return b
}

// withNames has the inbox tell where messages come from, too.
func (b *inbox) withNames() *inbox {
	b.names = make([]byte, batchLen*nameLen)
	for i := range b.msgs {
		b.msgs[i].hdr.Name = &b.names[i*nameLen]
	}
	return b
}

// receive fills the inbox; the kernel overwrites the lengths of the last call.
func (b *inbox) receive(fd, flags int) (int, error) {
	for i := range b.msgs {
		b.msgs[i].hdr.SetControllen(controlLen)
		b.msgs[i].hdr.Namelen = nameLen // of no effect without a name
	}
	return recvmmsg(fd, b.msgs, flags)
}

// message returns the data and the control messages of the i-th message.
func (b *inbox) message(i int) (data, control []byte) {
	size := len(b.data) / len(b.msgs)
	n := min(int(b.msgs[i].n), size)
	return b.data[i*size:][:n], b.control[i*controlLen:][:b.msgs[i].hdr.Controllen]
}

// name returns the sender's address of the i-th message, of an inbox with names.
func (b *inbox) name(i int) []byte { return b.names[i*nameLen:][:nameLen] }

// stampsOf finds, among control messages, when the kernel saw a packet and when
// the device did, in nanoseconds, each by its own clock; 0 stands for never. The
// kernel puts three times into one message (struct scm_timestamping): its own, one that
// is out of use, and the device's as it came. Of a sent packet there is a message with either.
//
// None of the machines that this was tested on has a device that stamps, so
// the third time comes from messages that the tests lay out as the kernel does.
func stampsOf(control []byte) (kernel, hardware int64) {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(control) {
			break
		}
		body := control[unix.CmsgLen(0):size]
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPING {
			return timeAt(body, 0), timeAt(body, 2)
		}
		control = control[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(control)):]
	}
	return 0, 0
}

// timeAt returns the i-th time of a row, or 0 if that is not so long.
func timeAt(row []byte, i int) int64 {
	const size = int(unsafe.Sizeof(unix.Timespec{}))
	if len(row) < (i+1)*size {
		return 0
	}
	return (*unix.Timespec)(unsafe.Pointer(&row[i*size])).Nano()
}

// outbox is room for a batch of datagrams to send.
type outbox struct {
	msgs    []mmsghdr
	iovs    []unix.Iovec
	names4  []unix.RawSockaddrInet4
	names6  []unix.RawSockaddrInet6
	control []byte // for each: where from, and, if asked for, TTL and TOS
	v6      bool
}

func newOutbox(v6 bool) *outbox {
	b := &outbox{msgs: make([]mmsghdr, batchLen), iovs: make([]unix.Iovec, batchLen), control: make([]byte, batchLen*controlLen), v6: v6}
	if v6 {
		b.names6 = make([]unix.RawSockaddrInet6, batchLen)
	} else {
		b.names4 = make([]unix.RawSockaddrInet4, batchLen)
	}
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.control[i*controlLen]
		if v6 {
			b.names6[i].Family = unix.AF_INET6
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names6[i])), unix.SizeofSockaddrInet6
		} else {
			b.names4[i].Family = unix.AF_INET
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names4[i])), unix.SizeofSockaddrInet4
		}
	}
	return b
}

// put makes d the i-th message. The source goes along as packet information,
// so that the kernel sends from it or not at all.
func (b *outbox) put(i int, d *Datagram, scope uint32) {
	b.iovs[i].Base = unsafe.SliceData(d.Segment)
	b.iovs[i].SetLen(len(d.Segment))
	if d.Interface != 0 {
		scope = d.Interface
	}
	control := b.control[i*controlLen:][:controlLen]
	var n int
	if b.v6 {
		b.names6[i].Addr, b.names6[i].Scope_id = d.Dst.As16(), scope
		info := unix.Inet6Pktinfo{Addr: d.Src.As16(), Ifindex: scope}
		n = putControl(control, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
		n += putOption(control[n:], unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, d.TTL)
		n += putOption(control[n:], unix.IPPROTO_IPV6, unix.IPV6_TCLASS, d.TOS)
	} else {
		b.names4[i].Addr = d.Dst.As4()
		info := unix.Inet4Pktinfo{Spec_dst: d.Src.As4(), Ifindex: int32(scope)}
		n = putControl(control, unix.IPPROTO_IP, unix.IP_PKTINFO, info)
		n += putOption(control[n:], unix.IPPROTO_IP, unix.IP_TTL, d.TTL)
		n += putOption(control[n:], unix.IPPROTO_IP, unix.IP_TOS, d.TOS)
	}
	b.msgs[i].hdr.SetControllen(n)
}

// putOption writes a control message with a number, unless that is 0.
func putOption(b []byte, level, kind int32, v uint8) int {
	if v == 0 {
		return 0
	}
	return putControl(b, level, kind, int32(v))
}

// putControl writes a control message and returns how much room it takes.
func putControl[T any](b []byte, level, kind int32, v T) int {
	size := int(unsafe.Sizeof(v))
	_ = b[unix.CmsgSpace(size)-1]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	*(*T)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = v
	return unix.CmsgSpace(size)
}
