package resp

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peekEnd looks, without waiting, whether the other side has ended the connection, or
// its half of it. What is still to be read does not hide that.
func peekEnd(conn net.Conn) (ended bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // one that cannot be looked at is taken for alive
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		ended = err == nil && n == 1 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return ended
}
