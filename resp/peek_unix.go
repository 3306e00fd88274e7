//go:build unix && !linux

package resp

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peekEnd looks, without waiting, whether nothing but the end is left to be read. Only
// Linux tells of the end behind what is left.
func peekEnd(conn net.Conn) (ended bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Read(func(fd uintptr) bool { // one that cannot be looked at is taken for alive
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = n == 0 && err == nil
		return true
	})
	return ended
}
