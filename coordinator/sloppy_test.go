package coordinator

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// This file holds the sloppy quorum (Dynamo §4.6) to its word on five nodes:
// whichever R and W of them live, every key can be read and written.

// only leaves some nodes alive: the others misbehave, and everybody knows it or
// has yet to find out.
func (r *rig) only(live []*node, f fault, known bool) {
	for _, n := range r.nodes {
		n.mu.Lock()
		n.mu.fault = f
		clear(n.mu.down)
		n.mu.Unlock()
	}
	for _, n := range live {
		n.set(healthy)
	}
	if !known {
		return
	}
	for id, n := range r.nodes {
		if n.mu.fault != healthy {
			r.seen(r.nodes[id])
		}
	}
}

// copies counts the nodes that hold a value under a key, in whatever row.
func (r *rig) copies(key, want string) int {
	count := 0
	for _, n := range r.nodes {
		n.mu.Lock()
		for k, rec := range n.mu.rows {
			if k.key == key && shows(rec, want) {
				count++
				break
			}
		}
		n.mu.Unlock()
	}
	return count
}

// groups are all choices of size nodes.
func (r *rig) groups(size int) (all [][]*node) {
	for bits := range 1 << len(r.ids) {
		var g []*node
		for i, id := range r.ids {
			if bits>>i&1 == 1 {
				g = append(g, r.nodes[id])
			}
		}
		if len(g) == size {
			all = append(all, g)
		}
	}
	return all
}

// keysOfManyOwners are keys of which few have the same owners.
func keysOfManyOwners() (keys []string) {
	for i := range 12 {
		keys = append(keys, fmt.Sprintf("key:%d", i))
	}
	return keys
}

func TestAnyTwoLiveNodesKeepEveryKeyWritableAndReadable(t *testing.T) {
	for _, known := range []bool{true, false} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			for g, live := range r.groups(2) {
				for _, key := range keysOfManyOwners() {
					for i, at := range live {
						r.only(live, unreachable, known)
						v := fmt.Sprintf("%d:%d", g, i)
						if _, err := at.write(key, set(v), WriteOptions{}); err != nil {
							t.Fatalf("known %v: %v alive: SET %s at %v: %v", known, live, key, at, err)
						}
						if n := r.copies(key, v); n < 2 {
							t.Fatalf("known %v: %v alive: SET %s at %v was acknowledged with %d copies", known, live, key, at, n)
						}
						for _, from := range live {
							res, err := from.read(key, ReadOptions{})
							if err != nil || !shows(res.Record, v) {
								t.Fatalf("known %v: %v alive: GET %s at %v: %q, %v; want %q", known, live, key, from, value(res.Record), err, v)
							}
						}
					}
				}
			}
		})
	}
}

// shows reports whether a value is among the live versions: a coordinator that
// has not seen an earlier one keeps it as a sibling.
func shows(rec version.Record, want string) bool {
	for _, v := range rec.Live(1000) {
		if string(v.Value) == want {
			return true
		}
	}
	return false
}

func TestAnyOneLiveNodeKeepsEveryKeyWritableAndReadableWithOne(t *testing.T) {
	for _, known := range []bool{true, false} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			for g, live := range r.groups(1) {
				for _, key := range keysOfManyOwners() {
					r.only(live, unreachable, known)
					v := fmt.Sprint(g)
					if _, err := live[0].write(key, set(v), WriteOptions{W: 1}); err != nil {
						t.Fatalf("known %v: SET %s at %v alone: %v", known, key, live[0], err)
					}
					res, err := live[0].read(key, ReadOptions{R: 1})
					if err != nil || !shows(res.Record, v) {
						t.Fatalf("known %v: GET %s at %v alone: %q, %v", known, key, live[0], value(res.Record), err)
					}
				}
			}
		})
	}
}

// Whoever the dead are and however they are dead, nothing is acknowledged that
// is not on W nodes, and the client hears of it in time.
func TestFewerThanWLiveNodesAcknowledgeNothing(t *testing.T) {
	for _, c := range []struct {
		fault fault
		known bool
	}{{unreachable, true}, {deaf, true}, {unreachable, false}, {deaf, false}, {silent, false}, {broken, false}} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			for _, live := range r.groups(1) {
				for _, key := range keysOfManyOwners() {
					r.only(live, c.fault, c.known)
					mints, start := r.mints(), time.Now()
					_, err := live[0].write(key, set("v"), WriteOptions{Timeout: time.Second})
					took := time.Since(start)
					var uncertain *UncertainError
					switch {
					case took > time.Second:
						t.Errorf("%+v: SET %s at %v: answered after %v", c, key, live[0], took)
					case c.known && (!errors.Is(err, ErrNoReplicas) || r.mints() != mints || took > 0):
						t.Errorf("%+v: SET %s at %v: %v after %v, %d mints", c, key, live[0], err, took, r.mints()-mints)
					case !errors.Is(err, ErrNoReplicas) && !errors.As(err, &uncertain) && r.copies(key, "v") < 2:
						t.Errorf("%+v: SET %s at %v: %v with %d copies", c, key, live[0], err, r.copies(key, "v"))
					}
					res, err := live[0].read(key, ReadOptions{Timeout: time.Second})
					if err == nil && !shows(res.Record, "v") && r.copies(key, "v") > 0 {
						t.Errorf("%+v: GET %s at %v: a failed read was taken for not-found", c, key, live[0])
					}
				}
			}
		})
	}
}

// Who stands in for whom changes with every death and return. A hint that was
// written for one owner is found when its holder stands in for another.
func TestAFallbackShowsWhatItKeepsForAnyOwner(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		r.seen(owners[0])
		if _, err := owners[1].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := value(others[0].get(key, owners[0].id)); got != "v" {
			t.Fatalf("hint for the dead owner: %q", got)
		}
		for _, n := range r.nodes {
			n.mu.down = map[ring.NodeID]bool{owners[1].id: true, owners[2].id: true}
		}
		for _, n := range []*node{owners[0], others[0], others[1]} {
			res, err := n.read(key, ReadOptions{R: 2})
			if err != nil || value(res.Record) != "v" {
				t.Errorf("at %v: %q, %v", n, value(res.Record), err)
			}
		}
	})
}
