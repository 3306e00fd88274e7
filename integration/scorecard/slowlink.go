//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slowLink is the link of one node as a piece of this program: a tap in the
// namespace of the node, another on the bridge, and frames carried between
// them, at once or, when it is bad, late, twice, out of order or not at all.
type slowLink struct {
	ends    [2]*os.File
	bad     atomic.Bool
	waiting atomic.Int64
	wg      sync.WaitGroup
}

// What a bad link does to a frame.
const (
	linkDelay  = 100 * time.Millisecond
	linkJitter = 50 * time.Millisecond
	linkLoss   = 0.05
	linkTwice  = 0.02
	linkQueue  = 20_000 // frames under way at most; more are lost
)

// slowLink replaces the link of node i, which must not run yet.
func (n *namespaces) slowLink(i int) (*slowLink, error) {
	l := &slowLink{}
	node, hub := n.name(i), n.hubName()
	if err := command("ip", "-n", node, "link", "del", "eth0"); err != nil {
		return nil, err
	}
	for k, end := range []struct {
		netns int
		name  string
		steps []string
	}{
		{n.nodes[i], "eth0", []string{"-n " + node + " addr add " + n.host(i) + "/24 dev eth0", "-n " + node + " link set eth0 up"}},
		{n.hub, fmt.Sprintf("t%d", i), []string{fmt.Sprintf("-n %s link set t%d master br0 up", hub, i)}},
	} {
		err := inNetns(end.netns, func() (err error) {
			l.ends[k], err = openTap(end.name)
			return err
		})
		if err != nil {
			l.close()
			return nil, err
		}
		for _, s := range end.steps {
			if err := command("ip", strings.Fields(s)...); err != nil {
				l.close()
				return nil, err
			}
		}
	}
	l.wg.Go(func() { l.carry(l.ends[0], l.ends[1]) })
	l.wg.Go(func() { l.carry(l.ends[1], l.ends[0]) })
	return l, nil
}

// openTap makes an Ethernet interface whose other end is a file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(request))); errno != 0 {
			err = errno
		}
	}
	if err != nil {
		_ = unix.Close(fd) // the first error is the telling one
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// carry passes frames on until the link is closed.
func (l *slowLink) carry(from, to *os.File) {
	const frameBytes = 1 << 16
	buf := make([]byte, frameBytes)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if !l.bad.Load() {
			_, _ = to.Write(buf[:n]) // a frame may be lost
			continue
		}
		copies := 1
		switch chance := rand.Float64(); {
		case chance < linkLoss || l.waiting.Load() > linkQueue:
			continue
		case chance < linkLoss+linkTwice:
			copies = 2
		}
		frame := append([]byte(nil), buf[:n]...)
		for range copies {
			l.waiting.Add(1)
			time.AfterFunc(linkDelay-linkJitter+rand.N(2*linkJitter), func() {
				defer l.waiting.Add(-1)
				_, _ = to.Write(frame) // as above
			})
		}
	}
}

// close removes the link; its interfaces go with their files.
func (l *slowLink) close() {
	for _, f := range l.ends {
		if f != nil {
			_ = f.Close() // frames may be lost
		}
	}
	l.wg.Wait()
}
