// Package cork holds back what a node sends while one of its goroutines makes much
// of it. It does no I/O.
package cork

import (
	"sync"
	"sync/atomic"
	"time"
)

// Most bounds how long frames wait for the end of a burst: one that waits
// for a disk must not hold up what it has asked before, nor what others ask.
const Most = 2 * time.Millisecond

// A Cork holds back the frames that goroutines make in a burst, such as those of a
// pipeline of commands or of the callbacks of one commit. They then leave in few
// writes and arrive in few reads, each of which would else wake a goroutine on both
// sides: with several processes to a processor, that is most of what a small
// request costs. Frames leave at the end of any burst, so nobody waits for
// longer than the own one takes, and at the latest after Most.
//
// One Cork is for all connections of a node. The nil Cork holds nothing back.
// A goroutine must not wait for an answer within its own burst.
type Cork struct {
	bursts atomic.Int32 // under way; for a look without the lock
	mu     struct {
		sync.Mutex
		bursts int
		held   []Conn // have something to send
		spare  []Conn
		timer  *time.Timer
		armed  bool
	}
}

// Conn is a connection with frames that are held back.
type Conn interface {
	// Uncork sends them. It is called once for every time they were held, with no lock held.
	Uncork()
}

// In begins a burst, which Out ends. Bursts of several goroutines may overlap.
func (c *Cork) In() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.mu.bursts++
	c.bursts.Store(int32(c.mu.bursts))
	c.mu.Unlock()
}

// Out ends a burst and lets go all that is held back, by whomever.
func (c *Cork) Out() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.mu.bursts--
	c.bursts.Store(int32(c.mu.bursts))
	c.pullLocked()
}

// Hold takes note of a connection that has something to send, or reports that it may
// send now. The connection may be locked.
func (c *Cork) Hold(conn Conn) bool {
	if c == nil || c.bursts.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.bursts == 0 {
		return false
	}
	c.mu.held = append(c.mu.held, conn)
	if !c.mu.armed {
		c.mu.armed = true
		if c.mu.timer == nil {
			c.mu.timer = time.AfterFunc(Most, c.late)
		} else {
			c.mu.timer.Reset(Most)
		}
	}
	return true
}

// late lets go what a burst holds back for too long.
func (c *Cork) late() {
	c.mu.Lock()
	c.mu.armed = false
	c.pullLocked()
}

// pullLocked lets go all that is held back, and releases mu.
func (c *Cork) pullLocked() {
	held := c.mu.held
	c.mu.held, c.mu.spare = c.mu.spare[:0], nil
	c.mu.Unlock()
	if len(held) == 0 {
		return
	}
	for i, conn := range held {
		held[i] = nil
		conn.Uncork()
	}
	c.mu.Lock()
	c.mu.spare = held[:0]
	c.mu.Unlock()
}
