package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// ringOf is a ring of the first so many of the rig's nodes.
func (r *rig) ringOf(nodes int) *ring.Ring {
	r.t.Helper()
	var members []ring.Member
	for _, id := range r.ids[:nodes] {
		members = append(members, ring.Member{ID: id, Weight: 100})
	}
	made, err := ring.New(ring.Params{Units: 64}, members)
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

func TestAWriteReachesTheOwnersInEveryLiveRing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 8, Config{})
		base, next := r.ringOf(5), r.ringOf(8)
		r.ring = base
		r.rings.Store(NewRings(ring.NewLive(base, next), Stamp{}, 0))
		moved := 0
		for i := range 60 {
			key := fmt.Sprint("k", i)
			if _, err := r.nodes[1].write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			synctest.Wait()
			p := base.Partition(ring.SlotOf([]byte(key)))
			for _, live := range []*ring.Ring{base, next} {
				for _, id := range live.Owners(p) {
					if got := value(r.nodes[id].get(key, 0)); got != "v" {
						t.Errorf("%s: owner %v has %q", key, id, got)
					}
				}
			}
			if !slices.Equal(base.Owners(p), next.Owners(p)) {
				moved++
			}
		}
		if moved == 0 {
			t.Error("nothing moves")
		}
	})
}

// Two of three new owners silent: the base has its W copies, the ring that is to
// follow has not, and so the write must not be acknowledged.
func TestAWriteThatOnlyTheBaseHasIsNotAcknowledged(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 6, Config{WriteTimeout: time.Second})
		base := r.ringOf(3)
		var others []ring.Member
		for _, id := range r.ids[3:] {
			others = append(others, ring.Member{ID: id, Weight: 100})
		}
		next, err := ring.New(ring.Params{Units: 64}, others)
		if err != nil {
			t.Fatal(err)
		}
		r.ring = base
		r.rings.Store(NewRings(ring.NewLive(base, next), Stamp{}, 0))
		for _, id := range r.ids[3:] {
			r.nodes[id].set(deaf)
		}
		if _, err := r.nodes[1].write("k", set("v"), WriteOptions{}); err == nil {
			t.Error("acknowledged")
		}
		for _, id := range r.ids[3:5] {
			r.nodes[id].set(healthy)
		}
		if _, err := r.nodes[1].write("k", set("w"), WriteOptions{}); err != nil {
			t.Errorf("with W live owners in both rings: %v", err)
		}
		for _, id := range r.ids[3:] {
			r.seen(r.nodes[id])
		}
		mints := r.mints()
		if _, err := r.nodes[1].write("k", set("x"), WriteOptions{}); !errors.Is(err, ErrNoReplicas) || r.mints() != mints {
			t.Errorf("with nobody alive in the ring that follows: %v, %d dots", err, r.mints()-mints)
		}
	})
}

// The owners of the ring that ends serve no more when others are read, and the node
// that a client asked has not heard of that yet.
func TestAWriteThatFindsNobodyInAChangeLooksAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 6, Config{WriteTimeout: time.Second})
		base, next := r.ringOf(5), r.ringOf(6)
		r.ring = base
		r.rings.Store(NewRings(ring.NewLive(base, next), Stamp{}, 0))
		key := "k"
		for _, n := range r.owners(key) {
			n.set(fenced)
		}
		time.AfterFunc(300*time.Millisecond, func() {
			for _, n := range r.owners(key) {
				n.set(healthy)
			}
		})
		asked := r.others(key)[0]
		began := time.Now()
		if _, err := asked.write(key, set("v"), WriteOptions{}); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		for _, n := range r.owners(key) {
			n.set(fenced)
		}
		began = time.Now()
		if _, err := asked.write(key, set("w"), WriteOptions{}); !errors.Is(err, ErrNoReplicas) || time.Since(began) > time.Second {
			t.Errorf("with owners that never serve: %v after %v", err, time.Since(began))
		}
		r.rings.Store(NewRings(ring.NewLive(base), Stamp{}, 1))
		began = time.Now()
		if _, err := asked.write(key, set("x"), WriteOptions{}); !errors.Is(err, ErrNoReplicas) || time.Since(began) > 0 {
			t.Errorf("with no ring beside: %v after %v", err, time.Since(began))
		}
	})
}

func TestRingsAreIdleOnceTheirLastRequestHasEnded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 5, Config{})
		old := r.rings.Load()
		for _, n := range r.nodes {
			n.mu.Lock()
			n.mu.delay = 100 * time.Millisecond
			n.mu.Unlock()
		}
		ended := make(chan error, 2)
		go func() {
			_, err := r.nodes[1].write("k", set("v"), WriteOptions{})
			ended <- err
		}()
		go func() {
			_, err := r.nodes[2].read("k", ReadOptions{})
			ended <- err
		}()
		synctest.Wait()
		r.rings.Store(NewRings(ring.NewLive(r.ring, r.ringOf(4)), Stamp{}, 0))
		if old.Idle() {
			t.Error("idle while two requests are under way")
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second) // their tails
		if !old.Idle() || !r.rings.Load().Idle() {
			t.Errorf("in use when all is over: %d and %d", old.users.Load(), r.rings.Load().users.Load())
		}
	})
}

// TestWhoHasLeftPassesRequestsOn has a node relay by rings that it is not in. In this rig
// all go by the same, so that at first no owner takes its write.
func TestWhoHasLeftPassesRequestsOn(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		relay := r.nodes[6]
		r.ring = r.ringOf(5)
		rings := NewRings(ring.NewLive(r.ring), Stamp{}, 1)
		rings.Relay = true
		r.rings.Store(rings)
		owners := r.owners(key)
		for i, n := range owners {
			n.put(key, made(90, uint64(i+1), fmt.Sprint("v", i), version.Record{}))
		}
		if res, err := relay.read(key, ReadOptions{R: 3}); err != nil || value(res.Record) == "" {
			t.Errorf("read: %v, %v", res, err)
		}
		time.Sleep(10 * time.Second) // repairs would run behind the answer
		for _, n := range r.nodes {
			if len(n.mu.merges) > 0 {
				t.Errorf("%v is repaired by a node that has left", n)
			}
		}
		var asked error
		done := make(chan struct{})
		relay.coord.ServeForwarded([]byte(key), set("w"), WriteOptions{Timeout: time.Second}, func(_ WriteResult, err error) { asked = err; close(done) })
		if <-done; !errors.Is(asked, ErrNotOwner) || r.mints() > 0 {
			t.Errorf("it coordinates for another: %v", asked)
		}
		began, late := time.Now(), 100*time.Millisecond
		time.AfterFunc(late, func() { r.rings.Store(NewRings(ring.NewLive(r.ring), Stamp{}, 2)) })
		if _, err := relay.write(key, set("w"), WriteOptions{}); err != nil || time.Since(began) > late+2*turnPause {
			t.Errorf("write: %v after %v", err, time.Since(began))
		}
		if relay.mints() > 0 || r.mints() != 1 {
			t.Errorf("%d mints, %d by the node that has left", r.mints(), relay.mints())
		}
	})
}

// Whoever is refused for its rings is told of later ones, some moments later.
func TestARequestThatIsRefusedForItsRingsGoesByTheNextOnes(t *testing.T) {
	const heard = 130 * time.Millisecond
	for name, ask := range map[string]func(*node) error{
		"read": func(n *node) error {
			res, err := n.read(key, ReadOptions{})
			if err == nil && value(res.Record) != "v" {
				err = fmt.Errorf("it shows %q", value(res.Record))
			}
			return err
		},
		"scan": func(n *node) error {
			page, err := n.coord.Scan(n.rig.t.Context(), ScanRequest{})
			if err == nil && len(page.Keys) != 1 {
				err = fmt.Errorf("it shows %q", page.Keys)
			}
			return err
		},
		"count": func(n *node) error {
			keys, err := n.coord.Count(n.rig.t.Context(), false)
			if err == nil && keys != 1 {
				err = fmt.Errorf("it counts %d", keys)
			}
			return err
		},
		"append": func(n *node) error {
			_, err := n.write(key, version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{})
			return err
		},
	} {
		for _, hears := range []bool{true, false} {
			inBubble(t, 6, Config{ReadTimeout: time.Second, WriteTimeout: time.Second}, func(t *testing.T, r *rig) {
				for _, n := range r.owners(key) {
					n.put(key, made(90, 1, "v", version.Record{}))
				}
				asked := r.owners(key)[0]
				next := NewRings(ring.NewLive(r.ring), Stamp{2}, 2)
				for _, n := range r.nodes {
					if n != asked {
						n.mu.Lock()
						n.mu.wants = next.Stamp
						n.mu.Unlock()
					}
				}
				if hears {
					time.AfterFunc(heard, func() { r.rings.Store(next) })
				}
				began := time.Now()
				err := ask(asked)
				took := time.Since(began)
				switch {
				case hears && (err != nil || took < heard || took > heard+2*turnPause):
					t.Errorf("%s: %v after %v", name, err, took)
				case !hears && (err == nil || took > time.Second):
					t.Errorf("%s, and nothing is heard: %v after %v", name, err, took)
				}
			})
		}
	}
}
