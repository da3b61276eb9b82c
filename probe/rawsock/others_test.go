//go:build !linux

package rawsock

import (
	"errors"
	"net/netip"
	"testing"
)

func TestNothingIsSupportedElsewhere(t *testing.T) {
	_, sender := OpenSender(false, true)
	_, capture := OpenCapture(ourPorts)
	_, tap := OpenTap(ourPorts)
	_, alarm := OpenAlarm()
	_, guard := HoldPort(61000)
	_, router := OpenRouter()
	_, _, route := new(Router).Route(netip.IPv4Unspecified())
	_, neighbour := new(Router).Neighbour(netip.IPv4Unspecified(), netip.IPv4Unspecified(), 0)
	_, devices := StampingDevices()
	for _, err := range []error{
		devices, new(Sender).WantHardware(), new(Capture).WantHardware(),
		sender, capture, tap, alarm, guard, router, route, neighbour,
		new(Capture).Wait(true), new(Capture).Take(nil), new(Tap).Stamps(nil), new(Sender).Stamps(nil), new(Guard).Silence(),
		new(Alarm).Set(0), new(Alarm).Each(nil),
	} {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("the error is %v, want ErrUnsupported", err)
		}
	}
}
