package coordinator

import (
	"testing"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

func TestSpreadBringsAWriteToTheOwnersAndCountsThem(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[2].set(unreachable)
		for name, op := range map[string]version.Op{"set": set("v"), "delete": {Kind: version.OpDelete}} {
			res, err := owners[0].write(key, op, WriteOptions{})
			if err != nil {
				t.Fatal(name, err)
			}
			req := SpreadRequest{Key: []byte(key), Seen: res.Token, Total: 3}
			if s, err := owners[0].coord.Spread(t.Context(), req); err != nil || s != (Spread{Owner: true, Local: true, Others: 1}) {
				t.Errorf("%s, with an owner cut off: %+v, %v", name, s, err)
			}
			if s, err := others[0].coord.Spread(t.Context(), req); err != nil || s != (Spread{Others: 2}) {
				t.Errorf("%s, asked of a fallback: %+v, %v", name, s, err)
			}
		}
		res, err := owners[0].write(key, set("w"), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the write has ended
		owners[2].set(healthy)
		req := SpreadRequest{Key: []byte(key), Seen: res.Token, Total: 3, Synced: true}
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
		s, err := owners[0].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Seen: res.Token, Total: 2})
		if err != nil || s.Holders() < 2 || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%+v, %v after %v", s, err, time.Since(began))
		}
		began = time.Now()
		s, err = owners[0].coord.Spread(t.Context(), SpreadRequest{Key: []byte(key), Seen: res.Token, Total: 3})
		if err != nil || s.Holders() != 2 || time.Since(began) > 2*time.Second {
			t.Errorf("of all: %+v, %v after %v", s, err, time.Since(began))
		}
	})
}
