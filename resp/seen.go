package resp

import (
	"bytes"
	"hash/maphash"

	"github.com/redynamo/redynamo/replica/version"
)

// seenKeys is how many keys a connection remembers (design §3.4).
const seenKeys = 128

// seen remembers, for the keys a connection touched last, what it has read of
// them: an LRU of seenKeys entries. Entries are reused with their key buffers,
// so that a connection that walks over many keys allocates nothing.
//
// Forgetting is safe: it can only turn an overwrite into a sibling.
type seen struct {
	seed    maphash.Seed
	index   map[uint64]int32 // key hash -> entry; of two equal hashes the later wins
	entries []seenEntry
	newest  int32 // ends of the list through entries, -1 when empty
	oldest  int32
}

type seenEntry struct {
	key        []byte
	hash       uint64
	past       version.Token // what it has read of the key
	token      version.Token
	hasToken   bool
	newer, old int32
}

// find returns the entry of key, or nil, and makes it the newest.
func (c *seen) find(key []byte) *seenEntry {
	if len(c.entries) == 0 {
		return nil
	}
	i, ok := c.index[maphash.Bytes(c.seed, key)]
	if !ok || !bytes.Equal(c.entries[i].key, key) {
		return nil
	}
	c.raise(i)
	return &c.entries[i]
}

// touch returns the entry of key, made if need be, and makes it the newest.
func (c *seen) touch(key []byte) *seenEntry {
	if c.index == nil {
		c.index = make(map[uint64]int32)
		c.newest, c.oldest = -1, -1
	}
	hash := maphash.Bytes(c.seed, key)
	i, ok := c.index[hash]
	switch {
	case ok:
		c.raise(i)
	case len(c.entries) < seenKeys:
		i = int32(len(c.entries))
		c.entries = append(c.entries, seenEntry{})
		c.link(i)
	default:
		i = c.oldest
		delete(c.index, c.entries[i].hash)
		c.raise(i)
	}
	e := &c.entries[i]
	if !ok || !bytes.Equal(e.key, key) {
		c.index[hash] = i
		e.key, e.hash = append(e.key[:0], key...), hash
		e.past, e.token, e.hasToken = version.Token{}, version.Token{}, false
	}
	return e
}

// forget drops everything.
func (c *seen) forget() { *c = seen{seed: c.seed} }

func (c *seen) raise(i int32) {
	if c.newest == i {
		return
	}
	c.unlink(i)
	c.link(i)
}

func (c *seen) unlink(i int32) {
	e := &c.entries[i]
	if e.newer >= 0 {
		c.entries[e.newer].old = e.old
	} else {
		c.newest = e.old
	}
	if e.old >= 0 {
		c.entries[e.old].newer = e.newer
	} else {
		c.oldest = e.newer
	}
}

func (c *seen) link(i int32) {
	e := &c.entries[i]
	e.newer, e.old = -1, c.newest
	if c.newest >= 0 {
		c.entries[c.newest].newer = i
	}
	c.newest = i
	if c.oldest < 0 {
		c.oldest = i
	}
}
