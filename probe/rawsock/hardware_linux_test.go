package rawsock

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe/packet"
)

func TestVirtualDevicesOfferNoStampsOfTheirOwn(t *testing.T) {
	from, _ := pair(t)
	var devices []StampingDevice
	must(t, from.Do(func() (err error) { devices, err = StampingDevices(); return err }))
	seen := make(map[string]bool)
	for _, d := range devices {
		seen[d.Name] = true
		if d.Offered || d.On || d.Clock != -1 {
			t.Errorf("%+v of a device without hardware", d)
		}
	}
	if !seen["lo"] || !seen[from.Interface()] {
		t.Errorf("devices %+v, want lo and %s among them", devices, from.Interface())
	}
}

func TestADeviceOffersStampsIfItStampsAllPacketsByAClock(t *testing.T) {
	full := unix.EthtoolTsInfo{
		So_timestamping: unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE,
		Phc_index:       0, Tx_types: 1<<unix.HWTSTAMP_TX_OFF | 1<<unix.HWTSTAMP_TX_ON,
		Rx_filters: 1<<unix.HWTSTAMP_FILTER_NONE | 1<<unix.HWTSTAMP_FILTER_ALL,
	}
	for _, c := range []struct {
		name   string
		change func(*unix.EthtoolTsInfo)
		want   bool
	}{
		{"all of it", func(*unix.EthtoolTsInfo) {}, true},
		{"nothing sent", func(i *unix.EthtoolTsInfo) { i.So_timestamping &^= unix.SOF_TIMESTAMPING_TX_HARDWARE }, false},
		{"nothing received", func(i *unix.EthtoolTsInfo) { i.So_timestamping &^= unix.SOF_TIMESTAMPING_RX_HARDWARE }, false},
		{"no raw stamps", func(i *unix.EthtoolTsInfo) { i.So_timestamping &^= unix.SOF_TIMESTAMPING_RAW_HARDWARE }, false},
		{"PTP's packets only", func(i *unix.EthtoolTsInfo) { i.Rx_filters = 1 << unix.HWTSTAMP_FILTER_PTP_V2_EVENT }, false},
		{"one-step sending only", func(i *unix.EthtoolTsInfo) { i.Tx_types = 1 << unix.HWTSTAMP_TX_ONESTEP_SYNC }, false},
		{"no clock", func(i *unix.EthtoolTsInfo) { i.Phc_index = -1 }, false},
	} {
		info := full
		c.change(&info)
		if got := offersAll(&info); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// A socket that asks for hardware stamps has the kernel's as before, and
// each once, where the device has none.
func TestAskingForHardwareStampsLeavesTheKernels(t *testing.T) {
	from, to := pair(t)
	for _, v6 := range []bool{false, true} {
		src, dst := from.Addr4(), to.Addr4()
		if v6 {
			src, dst = from.Addr6(), to.Addr6()
		}
		s, c := senderOn(t, from, v6, true), captureOn(t, from, ourPorts)
		must(t, s.WantHardware())
		must(t, c.WantHardware())
		send(t, s, tcp(t, netip.AddrPortFrom(src, 61003), netip.AddrPortFrom(dst, 7000), packet.SYN, 1, 0))
		answer := takeUntil(t, c, 1)[0] // the RST
		count := 0
		must(t, s.Stamps(func(stamp, hardware int64, _ []byte) {
			if count++; stamp == 0 || hardware != 0 || answer.Stamp < stamp {
				t.Errorf("sent at %d, by hardware at %d, answered at %d", stamp, hardware, answer.Stamp)
			}
		}))
		if count != 1 {
			t.Errorf("%d stamps of one SYN", count)
		}
	}
}
