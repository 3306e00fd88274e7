package membership

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// cuttable is memberlist's transport with dials that end when it is shut down:
// a node that stops while it tries to reach a dead member need not sit out the
// timeout.
type cuttable struct {
	*memberlist.NetTransport
	closing context.Context // a lifetime, not a request: ended by Shutdown
	cut     context.CancelFunc
	mu      struct {
		sync.Mutex
		open map[*cutConn]struct{} // connections dialled and not yet closed
	}
}

func newCuttable(t *memberlist.NetTransport) *cuttable {
	c := &cuttable{NetTransport: t}
	c.closing, c.cut = context.WithCancel(context.Background())
	c.mu.open = map[*cutConn]struct{}{}
	return c
}

func (t *cuttable) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(t.closing, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &cutConn{Conn: conn, owner: t}
	t.mu.Lock()
	t.mu.open[c] = struct{}{}
	t.mu.Unlock()
	if t.closing.Err() != nil {
		_ = c.Close() // Shutdown may have looked before the conn was noted
		return nil, net.ErrClosed
	}
	return c, nil
}

func (t *cuttable) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *cuttable) Shutdown() error {
	t.cut()
	t.mu.Lock()
	open := make([]*cutConn, 0, len(t.mu.open))
	for c := range t.mu.open {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // whoever used it gets the error
	}
	return t.NetTransport.Shutdown()
}

// cutConn tells its transport when it is closed.
type cutConn struct {
	net.Conn
	owner *cuttable
}

func (c *cutConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.mu.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
