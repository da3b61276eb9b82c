//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

const (
	frameLen  = 256
	frames    = 1 << 15
	blockLen  = 1 << 16
	inUse     = unix.TP_STATUS_USER
	networkTo = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
)

// wire is an independent capture at one end of the wire: a ring that the
// kernel fills, with stamps of its own. Nobody waits on it and nobody reads it
// before the end, so that it wakes nobody up.
type wire struct {
	fd   int
	ring []byte
}

// handshake is a SYN and its SYN-ACK as the wire saw them.
type handshake struct {
	rtt  time.Duration
	seq  uint32 // of the SYN-ACK; 0 if there was none
	port uint16 // of who sent the SYN
}

// tapWire captures what passes the first interface of a host.
func tapWire(on *lab.Node) (w *wire, err error) {
	w = &wire{fd: -1}
	err = on.Do(func() error { return w.open(on.Interface()) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture the wire: %w", err), w.close())
	}
	return w, nil
}

func (w *wire) open(device string) (err error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	// Without this, a ring notes the time at which it was filled.
	if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_TIMESTAMP, unix.SOF_TIMESTAMPING_SOFTWARE); err != nil {
		return os.NewSyscallError("setsockopt PACKET_TIMESTAMP", err)
	}
	if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return os.NewSyscallError("setsockopt PACKET_VERSION", err)
	}
	size := unix.TpacketReq{Block_size: blockLen, Block_nr: frames * frameLen / blockLen, Frame_size: frameLen, Frame_nr: frames}
	if err := unix.SetsockoptTpacketReq(w.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &size); err != nil {
		return os.NewSyscallError("setsockopt PACKET_RX_RING", err)
	}
	if w.ring, err = unix.Mmap(w.fd, 0, frames*frameLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return os.NewSyscallError("bind", unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkTo, Ifindex: link.Attrs().Index}))
}

// handshakes returns what was captured, in the order of the SYNs, and ends the capture.
func (w *wire) handshakes() (hs []handshake, err error) {
	defer func() { err = errors.Join(err, w.close()) }()
	var p packet.Packet
	type syn struct {
		port uint16
		seq  uint32
	}
	sent := make(map[syn]int64) // the stamp of its last copy
	open := make(map[syn]int)   // where its handshake is
	for i := range frames {
		f := w.ring[i*frameLen:][:frameLen]
		if binary.NativeEndian.Uint32(f)&inUse == 0 { // struct tpacket2_hdr
			return hs, nil
		}
		long, at := int(binary.NativeEndian.Uint32(f[8:])), int(binary.NativeEndian.Uint16(f[14:]))
		stamp := int64(binary.NativeEndian.Uint32(f[16:]))*1e9 + int64(binary.NativeEndian.Uint32(f[20:]))
		if at > frameLen || p.Decode(f[at:min(at+long, frameLen)]) != nil || p.Kind != packet.KindTCP {
			continue
		}
		switch s := &p.TCP; s.Flags & (packet.SYN | packet.ACK) {
		case packet.SYN:
			of := syn{s.Src.Port(), s.Seq}
			sent[of], open[of] = stamp, len(hs)
			hs = append(hs, handshake{port: of.port})
		case packet.SYN | packet.ACK:
			of := syn{s.Dst.Port(), s.Ack - 1}
			if at, ok := open[of]; ok { // no retransmission
				hs[at].rtt, hs[at].seq = time.Duration(stamp-sent[of]), s.Seq
				delete(open, of)
			}
		}
	}
	return nil, fmt.Errorf("the capture has room for %d packets, and there were more", frames)
}

func (w *wire) close() error {
	var errs []error
	if w.ring != nil {
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(w.ring)))
	}
	if w.fd >= 0 {
		errs = append(errs, unix.Close(w.fd))
	}
	return errors.Join(errs...)
}
