//go:build linux

package lab

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A space is an anonymous network namespace: it lives as long as its descriptor, a socket or a process in it.
type space struct {
	fd     int
	inode  uint64
	handle *netlink.Handle
}

// setting is a sysctl below net and its value.
type setting struct{ name, value string }

var (
	nodeSettings = []setting{
		// Paths may be asymmetric, and nobody but Route decides about them.
		{"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"}, {"ipv4/conf/default/send_redirects", "0"},
		{"ipv4/conf/all/accept_redirects", "0"}, {"ipv4/conf/default/accept_redirects", "0"},
		{"ipv6/conf/all/accept_redirects", "0"}, {"ipv6/conf/default/accept_redirects", "0"},
		// Addresses are usable at once, and idle links stay silent.
		{"ipv6/conf/all/accept_dad", "0"}, {"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/all/accept_ra", "0"}, {"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/all/router_solicitations", "0"}, {"ipv6/conf/default/router_solicitations", "0"},
		// Every probe that deserves an ICMP error gets one.
		{"ipv4/icmp_ratelimit", "0"}, {"ipv6/icmp/ratelimit", "0"},
	}
	routerSettings = []setting{{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}}
	// The space of the relays has no addresses, and must not say a word on the links that end there.
	relaySettings = []setting{{"ipv6/conf/all/disable_ipv6", "1"}, {"ipv6/conf/default/disable_ipv6", "1"}}
)

func newSpace(settings []setting) (*space, error) {
	s := &space{fd: -1}
	var err error
	<-ownThread(func() { err = s.create(settings) })
	if err == nil {
		err = s.connect()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// create makes the namespace. It leaves the calling thread inside.
func (s *space) create(settings []setting) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the new network namespace: %w", err)
	}
	s.fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("identifying the new network namespace: %w", err)
	}
	s.inode = st.Ino
	for _, v := range settings {
		// What is below /proc/sys/net belongs to the namespace of the thread that looks.
		if err := os.WriteFile("/proc/sys/net/"+v.name, []byte(v.value), 0); err != nil {
			return fmt.Errorf("setting net/%s to %s: %w", v.name, v.value, err)
		}
	}
	return nil
}

// connect opens a netlink socket in the namespace and brings its loopback interface up.
func (s *space) connect() error {
	h, err := netlink.NewHandleAt(netns.NsHandle(s.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink in the new namespace: %w", err)
	}
	s.handle = h
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback interface: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing the loopback interface up: %w", err)
	}
	return nil
}

// enter moves the calling thread, which must be locked and never used for anything else, into the namespace.
func (s *space) enter() error {
	if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return nil
}

func (s *space) close() {
	if s.handle != nil {
		s.handle.Close()
	}
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
}

// mayMakeSpaces tells whether the process may make network namespaces, by making one that is gone again on return.
func mayMakeSpaces() (err error) {
	<-ownThread(func() { err = unix.Unshare(unix.CLONE_NEWNET) })
	return err
}

// ownThread runs fn in a goroutine on an OS thread that runs nothing else and ends with it, so that fn may change
// namespace and priority. The channel that it returns is closed when fn is done, also if it was by runtime.Goexit.
func ownThread(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // Never unlocked: the runtime throws the thread away with the goroutine.
		if unix.Gettid() != unix.Getpid() {
			defer close(done)
			fn()
			return
		}
		// This is the main thread, which cannot end. Hold it until another goroutine has a thread of its own.
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			defer close(done)
			fn()
		}()
		<-other
		runtime.UnlockOSThread()
	}()
	return done
}
