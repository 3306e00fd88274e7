package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// A node that was stopped in the middle of a request goes on where it was, with what
// it had read. By then a key may be deleted and its tombstone dropped.

func TestAWriteThatWasHeldUpAfterItsReadMintsNothing(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for _, o := range owners {
			o.put(key, made(90, 1, "old", version.Record{}))
		}
		owners[0].mu.stopped = time.Hour
		_, err := owners[0].write(key, version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{R: 1})
		if !errors.Is(err, ErrNoReplicas) || r.mints() != 0 {
			t.Errorf("%v, %d mints", err, r.mints())
		}
	})
}

func TestATailThatWasHeldUpSendsNothing(t *testing.T) {
	for held, sends := range map[time.Duration]bool{time.Second: true, time.Hour: false} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners, others := r.owners(key), r.others(key)
			owners[2].set(broken)
			answered := make(chan error, 1)
			owners[0].coord.Write([]byte(key), set("v"), WriteOptions{}, func(_ WriteResult, err error) {
				time.Sleep(held)
				answered <- err
			})
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			r.drained()
			if kept := value(others[0].get(key, owners[2].id)) == "v"; kept != sends {
				t.Errorf("held up for %v: hint is kept %v", held, kept)
			}
		})
	}
}

func TestARepairThatWasHeldUpSendsNothing(t *testing.T) {
	for held, sends := range map[time.Duration]bool{time.Second: true, time.Hour: false} {
		inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			owners[0].put(key, made(90, 1, "v", version.Record{}))
			answered := make(chan error, 1)
			owners[0].coord.Read([]byte(key), ReadOptions{R: 3}, func(_ ReadResult, err error) {
				time.Sleep(held)
				answered <- err
			})
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			r.drained()
			if repaired := value(owners[1].get(key, 0)) == "v"; repaired != sends {
				t.Errorf("held up for %v: repaired %v", held, repaired)
			}
		})
	}
}

// However many nodes are tried one after the other, the last is not tried later.
func TestATailEndsAtAnAge(t *testing.T) {
	inBubble(t, 12, Config{MaxAge: 12 * time.Second}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[2].set(deaf)
		for _, n := range r.others(key) {
			n.set(deaf)
		}
		start := time.Now()
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		if took := time.Since(start); took > 12*time.Second {
			t.Errorf("the tail ended after %v", took)
		}
	})
}
