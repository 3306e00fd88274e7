package epoch

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/membership/ring"
)

var update = flag.Bool("update", false, "write testdata anew")

func goldenState() State {
	records := []ring.Record{
		{Member: ring.Member{ID: 0x11, PlaceID: 0x11, Zone: "eu-1", Weight: 100}, Counter: 1, TimeMS: 1700000000000, Admin: 0x11},
		{Member: ring.Member{ID: 0x22, PlaceID: 0x33, Weight: 1000}, Counter: 2, TimeMS: 1700000000001, Admin: 0x11},
	}
	s := Settled(0x11, records)
	gone := records[1]
	gone.Counter, gone.Removed, gone.Forgotten = 3, true, true
	fresh := ring.Record{Member: ring.Member{ID: 0x44, PlaceID: 0x33, Weight: 1000}, Counter: 1, TimeMS: 1700000000002, Admin: 0x11}
	s = s.Amend([]ring.Record{gone, fresh}).Advance(Local{})
	s.said = put(s.said, Tracker{ID: 0x44, Version: 7, Ack: s.Target().id, Sync: ID{5, 6}, Base: s.Base().id})
	return s
}

func TestEncodedStateIsPinned(t *testing.T) {
	const path = "testdata/state_v1.hex"
	got := goldenState().Append(nil)
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(got)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || hex.Dump(got) != string(want) {
		t.Fatalf("%v, got\n%s", err, hex.Dump(got))
	}
	back, err := Decode(got)
	if err != nil || !back.Equal(goldenState()) {
		t.Errorf("decoded %v (%v), want %v", back, err, goldenState())
	}
}

func TestDamagedStatesAreRefused(t *testing.T) {
	good := goldenState().Append(nil)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if _, err := Decode(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := Decode(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestStatesBeyondLimitsAreRefused(t *testing.T) {
	seal := func(change func(*State)) []byte {
		s := goldenState()
		change(&s)
		return s.Append(nil)
	}
	for what, b := range map[string][]byte{
		"zone": seal(func(s *State) {
			s.live[1] = newEpoch([]ring.Record{{Member: ring.Member{ID: 1, Zone: strings.Repeat("z", maxZoneBytes+1)}, Counter: 9}})
		}),
		"counter": seal(func(s *State) {
			s.live[1] = newEpoch([]ring.Record{{Member: ring.Member{ID: 1}, Counter: MaxCounter}})
		}),
		"live": seal(func(s *State) {
			for len(s.live) <= MaxLive {
				s.live = append(s.live[:1:1], s.live...)
			}
		}),
		"base": seal(func(s *State) { s.base = 2 }),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzDecode: decoding never panics, and what it accepts is what is encoded.
func FuzzDecode(f *testing.F) {
	f.Add(goldenState().Append(nil))
	f.Add(New(1, nil).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 {
			b = append(bytes.Clone(b[:len(b)-4]), checksum(b[:len(b)-4])...)
		}
		s, err := Decode(b)
		if err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Errorf("%x is encoded as %x", b, s.Append(nil))
		}
	})
}

func TestAStampIsItsBytes(t *testing.T) {
	s := Stamp{Target: ID{0x0102030405060708, 0x1112131415161718}, Base: ID{0x2122232425262728, 0x3132333435363738}}
	b := s.Bytes()
	if got, want := hex.EncodeToString(b[:]), "01020304050607081112131415161718"+"21222324252627283132333435363738"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if StampOf(b) != s {
		t.Errorf("%v, want %v", StampOf(b), s)
	}
}
