package record

import (
	"maps"
	"slices"
	"time"
)

// workloads are what a client does over and over, by name.
var workloads = map[string]func(*client){
	"add":    (*client).add,
	"cart":   (*client).cart,
	"delete": (*client).addOrDelete,
	"expire": (*client).expire,
	"plain":  (*client).plain,
	"mixed":  (*client).mixed,
}

// Workloads are the names of all workloads.
func Workloads() []string { return slices.Sorted(maps.Keys(workloads)) }

// manySiblings is how many versions a client lets a key have before it joins them.
const manySiblings = 8

// add makes a blind add, beside whatever others add, and joins what has piled up.
func (c *client) add() {
	key := c.key("add")
	if c.write(key, view{}, 0) > manySiblings && c.read(key) {
		c.write(key, c.views[key], 0)
	}
}

// cart reads a cart, or still knows it, and writes it with what was seen (paper
// §4.4).
func (c *client) cart() {
	key := c.key("cart")
	if (c.views[key].token == "" || c.rng.IntN(2) == 0) && !c.read(key) {
		return
	}
	c.write(key, c.views[key], 0)
}

// addOrDelete is cart with every third write a delete.
func (c *client) addOrDelete() {
	key := c.key("item")
	if !c.read(key) {
		return
	}
	if c.rng.IntN(3) == 0 {
		c.remove(key, c.views[key])
		return
	}
	c.write(key, c.views[key], 0)
}

// Lives of values that expire: from gone at once to there for a while.
const (
	shortestLife = 20 * time.Millisecond
	longestLife  = 4 * time.Second
)

// expire writes values that do not live long, sometimes beside each other, and
// looks at them.
func (c *client) expire() {
	key := c.key("brief")
	if c.rng.IntN(2) == 0 {
		c.read(key)
		return
	}
	v := c.views[key]
	if c.rng.IntN(4) == 0 {
		v = view{}
	}
	c.write(key, v, shortestLife+time.Duration(c.rng.Int64N(int64(longestLife-shortestLife))))
}

// plain is what a client that knows nothing of contexts does.
func (c *client) plain() {
	key := c.key("plain")
	if c.rng.IntN(4) == 0 {
		c.plainGet(key)
		return
	}
	c.plainSet(key)
}

// mixed does all that the others do, each on keys of its own.
func (c *client) mixed() {
	all := []func(){c.add, c.cart, c.addOrDelete, c.expire, c.plain}
	all[c.rng.IntN(len(all))]()
}
