//go:build !unix

package resp

import "net"

// peekEnd cannot tell here.
func peekEnd(net.Conn) bool { return false }
