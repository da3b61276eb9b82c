package rawsock

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// What sockets ask for besides software stamps. Without OPT_TX_SWHW the kernel
// would keep the software stamp of a packet that the device stamps.
const (
	hardwareSent     = unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE | unix.SOF_TIMESTAMPING_OPT_TX_SWHW
	hardwareReceived = unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE
)

// StampingDevices asks each device of the thread's network namespace for its
// own stamps. Anybody may; it changes nothing.
func StampingDevices() ([]StampingDevice, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	devices := make([]StampingDevice, len(all))
	for i := range all {
		if devices[i], err = stampingDevice(fd, all[i].Name); err != nil && !errors.Is(err, unix.ENODEV) { // gone meanwhile
			return nil, fmt.Errorf("ask %s for hardware stamps: %w", all[i].Name, err)
		}
	}
	return devices, nil
}

func stampingDevice(fd int, name string) (StampingDevice, error) {
	d := StampingDevice{Name: name, Clock: -1}
	info, err := unix.IoctlGetEthtoolTsInfo(fd, name)
	if unsupported(err) {
		return d, nil
	} else if err != nil {
		return d, os.NewSyscallError("ioctl ETHTOOL_GET_TS_INFO", err)
	}
	d.Clock, d.Offered = int(info.Phc_index), offersAll(info)
	if !d.Offered {
		return d, nil
	}
	set, err := unix.IoctlGetHwTstamp(fd, name)
	if unsupported(err) {
		return d, nil // an old driver can be set, and does not tell
	} else if err != nil {
		return d, os.NewSyscallError("ioctl SIOCGHWTSTAMP", err)
	}
	d.On = set.Tx_type == unix.HWTSTAMP_TX_ON && set.Rx_filter == unix.HWTSTAMP_FILTER_ALL
	return d, nil
}

// offersAll tells whether the device stamps all that it sends, and all that it receives.
func offersAll(info *unix.EthtoolTsInfo) bool {
	const both = unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE
	return info.So_timestamping&both == both && info.Phc_index >= 0 &&
		info.Tx_types&(1<<unix.HWTSTAMP_TX_ON) != 0 && info.Rx_filters&(1<<unix.HWTSTAMP_FILTER_ALL) != 0
}

// unsupported tells whether a device, or who may ask it, has no answer.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EPERM)
}

// WantHardware asks for the device's stamps besides the kernel's. They come
// later than those, by themselves: Stamps then hands a packet over twice.
func (s *Sender) WantHardware() error { return wantStamps(s.fd, sentStamps|hardwareSent) }

// WantHardware asks for the device's stamps besides the kernel's.
func (c *Capture) WantHardware() error {
	for _, fd := range c.fds {
		if err := wantStamps(fd, receiveStamps|hardwareReceived); err != nil {
			return err
		}
	}
	return nil
}

func wantStamps(fd, which int) error {
	return os.NewSyscallError("setsockopt SO_TIMESTAMPING", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, which))
}
