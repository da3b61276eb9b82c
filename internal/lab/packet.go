//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPacket is room for the virtio header, the Ethernet header and the largest batch of segments.
	maxPacket     = 10 + 14 + 1<<16
	receiveBuffer = 16 << 20 // What the kernel may hold for a wire that is late; as root.
)

// openPacket opens a packet socket on an interface of the namespace. Nothing is received before the socket is bound, so
// it never sees another interface.
func openPacket(s *space, ifindex int) (fd int, err error) {
	<-ownThread(func() {
		if err = s.enter(); err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		}
	})
	if err != nil {
		return -1, fmt.Errorf("opening a packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	for _, o := range []struct {
		level, name int
		what        string
	}{
		// With this header, packets whose checksum or segmentation is left to the device survive being sent again.
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, "PACKET_VNET_HDR"},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING"},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, "SO_TIMESTAMPNS"},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return -1, fmt.Errorf("setting %s: %w", o.what, err)
		}
	}
	for _, name := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, receiveBuffer); err != nil {
			return -1, fmt.Errorf("setting the size of socket buffers: %w", err)
		}
	}
	// Only root may have more than the limit of the system. What overflows is counted.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveBuffer)
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return -1, fmt.Errorf("binding a packet socket: %w", err)
	}
	return fd, nil
}

// arrivalTime tells from a packet's control messages when the kernel received it, as a time before now. The stamp is of
// the wall clock, so one that makes no sense, because that clock was stepped, counts for nothing.
func arrivalTime(now time.Time, oob []byte) time.Time {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_TIMESTAMPNS && len(data) >= 16 {
			stamp := time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
			if age := now.Sub(stamp); age > 0 && age < time.Second {
				return now.Add(-age)
			}
			break
		}
		oob = rest
	}
	return now
}
