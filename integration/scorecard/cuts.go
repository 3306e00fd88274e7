//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// cuts is what is known of cuts of the network, to tell what they excuse.
type cuts struct {
	made    []cutting
	members []*node               // of the ring before it changes
	owners  []map[string][]string // of keys, by the rings that were read from; addresses of plain doors
}

// cutting is one cut between two sides. It takes a while from its first link to the
// last, and lasts until to, or still does if to is zero.
type cutting struct {
	from, whole, to time.Time
	sides           [2][]*node
}

const (
	// mended is how long after a cut nodes may still believe in it.
	mended = 3 * time.Second
	// writeNodes is W.
	writeNodes = 2
)

// of returns the sides on which a node was at some moment of a span. Clients keep to one
// side of each cut.
func (c *cuts) of(p *node, from, to time.Time) (sides [][]*node) {
	for _, m := range c.made {
		if to.Before(m.from) || !m.to.IsZero() && from.After(m.to.Add(mended)) {
			continue
		}
		for _, side := range m.sides {
			if slices.Contains(side, p) {
				sides = append(sides, side)
			}
		}
	}
	return sides
}

// ownerless reports whether a node could not reach any owner of a key, by one of the
// rings, at some moment of a span.
func (c *cuts) ownerless(key string, p *node, from, to time.Time) bool {
	return slices.ContainsFunc(c.of(p, from, to), func(side []*node) bool {
		return slices.ContainsFunc(c.owners, func(of map[string][]string) bool {
			list, known := of[key]
			return known && !slices.ContainsFunc(side, func(q *node) bool { return slices.Contains(list, q.plain) })
		})
	})
}

// excuses reports whether an operation of a client of a node may fail: a cut has just
// been made, or there are too few nodes on its side.
func (c *cuts) excuses(p *node, op sample) bool {
	end := op.at.Add(op.took)
	justCut := slices.ContainsFunc(c.made, func(m cutting) bool {
		return !end.Before(m.from) && op.at.Before(m.whole.Add(detection))
	})
	return justCut || slices.ContainsFunc(c.of(p, op.at, end), c.few) || c.ownerless(op.key, p, op.at, end)
}

// few reports whether a side has too few nodes to acknowledge a write. Who is joining
// is none of those that stand in for owners in the ring of before.
func (c *cuts) few(side []*node) bool {
	n := 0
	for _, p := range side {
		if slices.Contains(c.members, p) {
			n++
		}
	}
	return n < writeNodes
}

// cut separates nodes from all others of the bed, until mend.
func (b *bed) cut(some ...*node) {
	c := cutting{from: time.Now()}
	var at [2][]int
	for _, p := range b.c.nodes {
		side := 1
		if slices.Contains(some, p) {
			side = 0
		}
		c.sides[side], at[side] = append(c.sides[side], p), append(at[side], p.index)
	}
	b.cuts.made = append(b.cuts.made, c)
	b.must(b.ns.cut(at[0], at[1]))
}

// mend ends a cut.
func (b *bed) mend() {
	b.must(b.ns.heal())
	b.cuts.made[len(b.cuts.made)-1].to = time.Now()
}

// learnOwners notes the owners that keys of the load have by the ring that a node reads
// from. Requires: that ring is at rest.
func (b *bed) learnOwners(p *node) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	of := map[string][]string{}
	for keys := range slices.Chunk(slices.Concat(b.old.keys, sharedKeys()), surveyBatch) {
		pipe := cl.Pipeline()
		cmds := make([]*redis.Cmd, len(keys))
		for i, key := range keys {
			cmds[i] = pipe.Do(b.ctx, "RING", "OWNERS", key)
		}
		_, err := pipe.Exec(b.ctx)
		b.must(err)
		for i, key := range keys {
			for _, entry := range cmds[i].Val().([]any) {
				if f := fieldsOf(entry); f["role"] == "owner" {
					of[key] = append(of[key], fmt.Sprint(f["address"]))
				}
			}
		}
	}
	b.cuts.owners = append(b.cuts.owners, of)
}
