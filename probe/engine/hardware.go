package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// wantHardware asks for the devices' own stamps, where they can be had. What
// leaves or comes by another device has the kernel's in any case, and so has a SYN
// whose stamp the device hands over later than the answer: nobody waits for it.
//
// The way from there to a result is tested with stamps laid out as the kernel
// does; no machine of ours had a device to prove it on the wire.
func (e *Engine) wantHardware() {
	devices, err := rawsock.StampingDevices()
	if err == nil {
		err = usable(devices)
	}
	if err == nil {
		err = e.capture.WantHardware()
	}
	for _, s := range e.senders {
		if s != nil && err == nil {
			err = s.WantHardware()
		}
	}
	if err != nil {
		e.cfg.Logger.Info("stamps are the kernel's", "reason", err)
		return
	}
	e.cfg.Logger.Info("stamps are the network device's where both packets of a round trip have one, else the kernel's")
}

// usable tells why the devices' stamps are of no use, or returns nil. Those of
// several devices can be compared only if they share a clock.
func usable(devices []rawsock.StampingDevice) error {
	var offered, on *rawsock.StampingDevice
	for i := range devices {
		d := &devices[i]
		switch {
		case !d.Offered:
		case !d.On:
			offered = d
		case on != nil && on.Clock != d.Clock:
			return fmt.Errorf("%s and %s stamp by different clocks; switch one of them off", on.Name, d.Name)
		default:
			on = d
		}
	}
	switch {
	case on != nil:
		return nil
	case offered != nil:
		return fmt.Errorf("%s could stamp, and is not switched on; hwstamp_ctl -i %s -t 1 -r 1 does that, for everybody on this host", offered.Name, offered.Name)
	}
	return errors.New("no network device stamps all packets")
}

// roundTrip returns the time between the SYN and its answer: by the device's
// stamps if both have one, else by the kernel's. Of two clocks that know nothing of
// each other, stamps are never mixed.
func (f *flight) roundTrip() (time.Duration, probe.Stamp) {
	from, a := f.answered(), &f.answer
	kernel := time.Duration(a.stamp - from.sent)
	if from.hardware == 0 || a.hardware == 0 {
		return kernel, probe.StampKernel
	}
	if hardware := time.Duration(a.hardware - from.hardware); plausible(hardware, kernel) {
		return hardware, probe.StampHardware
	}
	e := f.task.engine
	e.mu.Lock()
	e.stats.Mistrusted++
	e.mu.Unlock()
	return kernel, probe.StampKernel
}

// plausible tells whether a round trip by the device's stamps fits that by the
// kernel's. The kernel stamps the SYN before the device does and the answer
// after it, so the device's round trip is the shorter one. It may be longer by
// as much as the clocks' rates differ, which is less than a thousandth, and by their resolution.
// If not, somebody has set the device's clock meanwhile.
func plausible(hardware, kernel time.Duration) bool {
	return hardware > 0 && hardware <= kernel+kernel/1000+time.Microsecond
}
