package coordinator

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

func TestEveryMessageForRowsCarriesTheStampOfItsRings(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		old := Stamp{7}
		r.rings.Store(NewRings(ring.NewLive(r.ring), old, 3))
		owners[0].put(key, made(90, 1, "old", version.Record{}))
		owners[1].set(unreachable) // its copy is kept by another node
		for _, n := range owners {
			n.mu.Lock()
			n.mu.delay = time.Millisecond
			n.mu.Unlock()
		}
		answered := make(chan error, 2)
		owners[0].coord.Write([]byte(key), version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{}, func(_ WriteResult, err error) { answered <- err })
		owners[2].coord.Read([]byte(key), ReadOptions{R: 3}, func(_ ReadResult, err error) { answered <- err }) // and repairs
		r.rings.Store(NewRings(ring.NewLive(r.ring), Stamp{8}, 4))                                              // while they are under way
		for range 2 {
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // their tails
		check := func(want Stamp, least int) {
			t.Helper()
			got := 0
			for _, n := range r.nodes {
				n.mu.Lock()
				for _, s := range n.mu.stamps {
					if got++; s != want {
						t.Errorf("a message has stamp %v, want %v", s[0], want[0])
					}
				}
				n.mu.stamps = nil
				n.mu.Unlock()
			}
			if got < least {
				t.Errorf("%d messages", got)
			}
		}
		check(old, 3+3+3)
		if _, err := owners[0].coord.Scan(t.Context(), ScanRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := owners[0].coord.Inspect(t.Context(), []byte(key)); err != nil {
			t.Error(err)
		}
		owners[1].set(healthy)
		if _, err := owners[0].coord.Count(t.Context(), false); err != nil {
			t.Error(err)
		}
		check(Stamp{8}, 2+3+1)
	})
}

// age waits for the rings to be idle and returns how long that took; before, no
// request is left.
func (r *rig) age(rings *Rings) time.Duration {
	r.t.Helper()
	r.drained()
	start := time.Now()
	if n := rings.users.Load(); n != 0 {
		r.t.Errorf("%d users are left of a coordinator without requests", n)
	}
	for !rings.Idle() {
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// How the rings of a write come to be idle when one owner answers so.
func TestRingsAreInUseUntilWhatNobodyAnsweredIsTooOld(t *testing.T) {
	for f, open := range map[fault]bool{
		healthy: false, unreachable: false, overloaded: false, full: false, broken: false, fenced: false, outdated: false,
		deaf: true, silent: true,
	} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t, 5, Config{MessageAge: 40 * time.Second})
			owners, rings := r.owners(key), r.rings.Load()
			owners[2].set(f)
			sent := time.Now()
			if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			waited := r.age(rings)
			took := time.Since(sent)
			switch {
			case !open && waited != 0:
				t.Errorf("fault %d: in use for %v after the last request", f, waited)
			case open && (took < 40*time.Second || took > 40*time.Second+2*time.Second):
				t.Errorf("fault %d: idle %v after the message was sent", f, took)
			}
		})
	}
}

func TestAHintThatNobodyAnsweredKeepsItsRingsInUse(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 5, Config{})
		owners, others, rings := r.owners(key), r.others(key), r.rings.Load()
		owners[2].set(unreachable)
		others[0].set(silent) // it may keep the hint yet, long after the client has its answer
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if rings.Idle() {
			t.Error("idle before the tail has ended")
		}
		if waited := r.age(rings); waited < 55*time.Second || waited > time.Minute {
			t.Errorf("idle %v after the last request", waited)
		}
	})
}

func TestARepairKeepsItsRingsInUse(t *testing.T) {
	for f, open := range map[fault]bool{healthy: false, unreachable: false, broken: false, deaf: true} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t, 3, Config{})
			owners, rings := r.owners(key), r.rings.Load()
			owners[0].put(key, made(90, 1, "v", version.Record{}))
			owners[1].mu.disk = f
			for _, n := range owners {
				n.mu.delay = 100 * time.Millisecond
			}
			if _, err := owners[0].read(key, ReadOptions{R: 3}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if rings.Idle() {
				t.Errorf("fault %d: idle while repairs are under way", f)
			}
			if waited := r.age(rings); (waited > 50*time.Second) != open {
				t.Errorf("fault %d: idle %v after the last request", f, waited)
			}
		})
	}
}

// A read changes nothing: when its caller has given up, it is over.
func TestAReadThatNobodyAnsweredIsOver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 3, Config{})
		owners, rings := r.owners(key), r.rings.Load()
		owners[1].set(deaf)
		owners[2].set(deaf)
		if _, err := owners[0].read(key, ReadOptions{}); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
		if waited := r.age(rings); waited != 0 {
			t.Errorf("in use for %v", waited)
		}
	})
}

// A write that was handed over goes by the rings of the node that has it.
func TestAWriteThatWasHandedOverIsOverWithItsAnswer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, 5, Config{})
		owners, others, rings := r.owners(key), r.others(key), r.rings.Load()
		for _, o := range owners {
			o.set(dyingDeaf)
		}
		var uncertain *UncertainError
		if _, err := others[0].write(key, set("v"), WriteOptions{}); !errors.As(err, &uncertain) {
			t.Error(err)
		}
		if waited := r.age(rings); waited != 0 {
			t.Errorf("in use for %v", waited)
		}
	})
}

func TestARequestThatOthersFindStaleFailsAndIsKeptByNobody(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[0].put(key, made(90, 1, "v", version.Record{}))
		for _, n := range owners[1:] {
			n.set(outdated)
		}
		for _, n := range r.others(key) {
			n.set(outdated)
		}
		if _, err := owners[0].read(key, ReadOptions{}); !errors.Is(err, ErrNoReadQuorum) || !errors.Is(err, ErrStaleEpoch) {
			t.Errorf("read: %v", err)
		}
		for _, n := range r.others(key) {
			n.set(healthy)
		}
		var uncertain *UncertainError
		if _, err := owners[0].write(key, set("w"), WriteOptions{}); !errors.As(err, &uncertain) || uncertain.Acked != 1 {
			t.Errorf("write: %v", err)
		}
		synctest.Wait()
		for _, n := range r.nodes {
			for k := range n.mu.rows {
				if k.owner != 0 || n != owners[0] {
					t.Errorf("%v keeps %v", n, k)
				}
			}
		}
		if _, err := owners[0].coord.Scan(t.Context(), ScanRequest{}); !errors.Is(err, ErrNoReadQuorum) {
			t.Errorf("scan: %v", err)
		}
	})
}

// TestWhatOthersFindStaleIsReadAgainByTheRingsOfThen has everybody go by later rings,
// of which this node hears a little later.
func TestWhatOthersFindStaleIsReadAgainByTheRingsOfThen(t *testing.T) {
	const late = 300 * time.Millisecond
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for _, n := range owners {
			n.put(key, made(90, 1, "v", version.Record{}))
		}
		for name, request := range map[string]func() (string, error){
			"GET": func() (string, error) {
				res, err := owners[0].read(key, ReadOptions{})
				return value(res.Record), err
			},
			"APPEND": func() (string, error) {
				_, err := owners[0].write(key, version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{})
				return value(owners[0].get(key, 0)), err
			},
		} {
			for _, n := range r.nodes {
				n.set(outdated)
				n.mu.reads = nil
			}
			owners[0].set(healthy)
			old, began := r.rings.Load(), time.Now()
			time.AfterFunc(late, func() {
				for _, n := range r.nodes {
					n.set(healthy)
				}
				r.rings.Store(NewRings(ring.NewLive(r.ring), Stamp{9}, old.Number+1))
			})
			got, err := request()
			if took := time.Since(began); err != nil || took < late || took > late+2*turnPause {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			if appended := strings.HasSuffix(got, "+"); !strings.HasPrefix(got, "v") || name == "APPEND" && !appended {
				t.Errorf("%s shows %q", name, got)
			}
			time.Sleep(time.Second)
			for _, n := range r.nodes {
				if len(n.mu.reads) > 2 {
					t.Errorf("%s: %v was asked %d times", name, n, len(n.mu.reads))
				}
			}
			if users := old.users.Load(); users != 0 {
				t.Errorf("%s: %d users are left of the rings of before", name, users)
			}
		}
	})
}

// An owner that says it is none has no say in what there is, and a write goes on
// without it as without one that is down.
func TestANodeThatIsNoOwnerNeitherAnswersForTheKeyNorLosesItsPlace(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		for _, n := range owners {
			n.put(key, made(90, 1, "v", version.Record{}))
		}
		owners[1].set(fenced)
		res, err := owners[0].read(key, ReadOptions{R: 3})
		if err != nil || value(res.Record) != "v" {
			t.Errorf("read: %v, %v", res, err)
		}
		if _, err := owners[0].write(key, set("w"), WriteOptions{W: 3}); err != nil {
			t.Errorf("write: %v", err)
		}
		if got := value(others[0].get(key, owners[1].id)); got != "w" {
			t.Errorf("the hint is %q", got)
		}
		for _, n := range owners[1:] {
			n.set(fenced)
		}
		for _, n := range others {
			n.set(fenced)
		}
		if _, err := owners[0].read(key, ReadOptions{}); !errors.Is(err, ErrNoReadQuorum) {
			t.Errorf("with one owner left, read: %v", err)
		}
		owners[0].mu.mintErr = ErrNotOwner
		owners[1].set(healthy)
		if _, err := owners[0].write(key, set("x"), WriteOptions{W: 1}); err != nil || owners[1].mints() != 1 {
			t.Errorf("minted by the next owner: %v, %d", err, owners[1].mints())
		}
	})
}
