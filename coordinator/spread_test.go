package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// wrote is a write that was acknowledged so.
func wrote(op version.Op, res WriteResult) version.Wrote {
	return version.Wrote{Kind: op.Kind, HLC: res.HLC, Token: res.Token}
}

func TestSpreadBringsAWriteToTheOwnersAndCountsThem(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[2].set(unreachable)
		for name, op := range map[string]version.Op{"set": set("v"), "delete": {Kind: version.OpDelete}} {
			res, err := owners[0].write(key, op, WriteOptions{})
			if err != nil {
				t.Fatal(name, err)
			}
			req := SpreadRequest{Key: []byte(key), Wrote: wrote(op, res), Total: 3}
			if s, err := owners[0].coord.Spread(t.Context(), req); err != nil || !s.Owner || !s.Local || s.Others != 1 {
				t.Errorf("%s, with an owner cut off: %+v, %v", name, s, err)
			}
			if s, err := others[0].coord.Spread(t.Context(), req); err != nil || s.Owner || s.Local || s.Others != 2 {
				t.Errorf("%s, asked of a fallback: %+v, %v", name, s, err)
			}
		}
		res, err := owners[0].write(key, set("w"), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the write has ended
		owners[2].set(healthy)
		req := SpreadRequest{Key: []byte(key), Wrote: wrote(set(""), res), Total: 3, Synced: true}
		if s, err := owners[1].coord.Spread(t.Context(), req); err != nil || s.Holders() != 3 {
			t.Errorf("healed: %+v, %v", s, err)
		}
		if got := value(owners[2].get(key, 0)); got != "w" {
			t.Errorf("the owner that missed it has %q", got)
		}
	})
}

func TestSpreadDoesNotWaitForTheSilentOnceEnoughHaveIt(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		res, err := owners[0].write(key, set("v"), WriteOptions{W: 3})
		if err != nil {
			t.Fatal(err)
		}
		owners[2].set(silent)
		began := time.Now()
		s, err := owners[0].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Wrote: wrote(set(""), res), Total: 2})
		if err != nil || s.Holders() < 2 || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%+v, %v after %v", s, err, time.Since(began))
		}
		began = time.Now()
		s, err = owners[0].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Wrote: wrote(set(""), res), Total: 3})
		if err != nil || s.Holders() != 2 || time.Since(began) > 2*time.Second {
			t.Errorf("of all: %+v, %v after %v", s, err, time.Since(began))
		}
	})
}

// kinds are writes of which each shows in its own way that an owner has it.
func kinds() map[string]version.Op {
	return map[string]version.Op{
		"set": set("w"), "delete": {Kind: version.OpDelete},
		"expire": {Kind: version.OpExpire, ExpireAtMS: 5000}, "count": {Kind: version.OpCount, Value: []byte("1")},
	}
}

// have fails the test unless nodes have all that a record says.
func have(t *testing.T, written version.Record, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		if rec := n.get(key, 0); !version.Merge(rec, written).Equal(rec) {
			t.Errorf("%v was counted and has not the write: %+v", n, rec)
		}
	}
}

// TestSpreadFindsAWriteThatRestsOnFallbacks has the only owner with the write gone, and
// two owners back that missed it.
func TestSpreadFindsAWriteThatRestsOnFallbacks(t *testing.T) {
	for name, op := range kinds() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
				o, f := r.owners(key), r.others(key)
				if _, err := o[0].write(key, set("7"), WriteOptions{W: 3}); err != nil {
					t.Fatal(err)
				}
				o[1].set(unreachable)
				o[2].set(unreachable)
				res, err := o[0].write(key, op, WriteOptions{})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // the write has ended
				o[1].set(healthy)
				o[2].set(healthy)
				o[0].set(unreachable)
				r.seen(o[0])
				s, err := f[1].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Wrote: wrote(op, res), Total: 2, Synced: true})
				if err != nil || s.Others != 2 {
					t.Errorf("%+v, %v", s, err)
				}
				have(t, o[0].get(key, 0), o[1:]...)
			})
		})
	}
}

// TestSpreadDoesNotTakeAnOldCopyForTheWrite has a write on one owner alone, which
// answers last.
func TestSpreadDoesNotTakeAnOldCopyForTheWrite(t *testing.T) {
	for name, op := range kinds() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
				o := r.owners(key)
				if _, err := o[0].write(key, set("7"), WriteOptions{W: 3}); err != nil {
					t.Fatal(err)
				}
				o[1].refuses(overloaded)
				o[2].refuses(overloaded)
				res, err := o[0].write(key, op, WriteOptions{W: 1})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // the write has ended
				written := o[0].get(key, 0)
				o[1].refuses(healthy)
				o[2].refuses(healthy)
				o[0].seemsAt(300 * time.Millisecond)
				o[2].seemsAt(time.Millisecond)
				s, err := o[1].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Wrote: wrote(op, res), Total: 3})
				if err != nil || s.Holders() != 3 {
					t.Errorf("%+v, %v", s, err)
				}
				have(t, written, o...)
				if s, err = o[2].coord.Spread(t.Context(), SpreadRequest{Key: []byte("none"), Wrote: wrote(op, res), Total: 3}); !errors.Is(err, ErrStale) || s.Holders() != 0 {
					t.Errorf("nobody has it: %+v, %v", s, err)
				}
			})
		})
	}
}

// TestSpreadFindsADeleteThatTheFastestOwnersLack has a delete at one owner that is slow
// to answer, and with a stand-in.
func TestSpreadFindsADeleteThatTheFastestOwnersLack(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		o, f := r.owners(key), r.others(key)
		if _, err := o[0].write(key, set("v"), WriteOptions{W: 3}); err != nil {
			t.Fatal(err)
		}
		for i, n := range o {
			n.seemsAt(time.Duration(3-i) * time.Millisecond)
			if i > 0 {
				n.refuses(deaf)
			}
		}
		op := version.Op{Kind: version.OpDelete}
		res, err := f[1].write(key, op, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		written := o[0].get(key, 0)
		o[1].refuses(healthy)
		o[2].refuses(healthy)
		s, err := f[1].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Wrote: wrote(op, res), Total: 3})
		if err != nil || s.Others != 3 {
			t.Errorf("%+v, %v", s, err)
		}
		have(t, written, o...)
	})
}

func TestSpreadSendsNothingToOwnersThatWereCounted(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		o := r.owners(key)
		res, err := o[0].write(key, set("v"), WriteOptions{W: 3})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the write has ended
		o[2].refuses(overloaded)
		req := SpreadRequest{Key: []byte(key), Wrote: wrote(set("v"), res), Total: 3}
		merges := func() (n [3]int) {
			for i := range o {
				o[i].mu.Lock()
				n[i] = len(o[i].mu.merges)
				o[i].mu.Unlock()
			}
			return n
		}
		first, err := o[0].coord.Spread(t.Context(), req)
		if err != nil || first.Holders() != 2 || len(first.Has) != 2 {
			t.Fatalf("%+v, %v", first, err)
		}
		o[2].refuses(healthy)
		was := merges()
		req.Has = first.Has
		again, err := o[0].coord.Spread(t.Context(), req)
		if err != nil || again.Holders() != 3 || len(again.Has) != 3 {
			t.Errorf("%+v, %v", again, err)
		}
		if now := merges(); now != [3]int{was[0], was[1], was[2] + 1} {
			t.Errorf("owners were sent %v records, then %v", was, now)
		}
	})
}
