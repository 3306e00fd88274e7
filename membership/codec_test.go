package membership

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// golden reads annotated hex: bytes, then # and what they are.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for line := range strings.Lines(string(text)) {
		digits, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		all = append(all, b...)
	}
	return all
}

func sampleAnnouncement() announcement {
	return announcement{
		ID: 0x1111111111111111, Stamp: 0x0190000000000000, MaxLevel: 3, Zone: "eu-1",
		Boot: Boot{Number: 7, Incarnation: 0xa1a2a3a4a5a6a7a8, Reached: 0x999}, Recovering: true,
		Endpoints: Endpoints{Host: "10.0.0.1", Plain: 6379, Cluster: 6380, Peer: 7379, Admin: 8379, Gossip: 7946},
	}
}

func sampleState() state {
	s := state{From: 0x1111111111111111, Level: firstLevel, Established: true, Opened: true}
	s.ClusterID, s.TokenKey = [16]byte{0xc1, 15: 0xff}, [16]byte{0x70, 15: 0xee}
	s.Units, s.N = 1024, 3
	s.Records = []ring.Record{
		{Member: ring.Member{ID: 0x1111111111111111, PlaceID: 0x1111111111111111, Zone: "eu-1", Weight: 100},
			Counter: 1, TimeMS: 1700000000000, Admin: 0x1111111111111111},
		{Member: ring.Member{ID: 0x2222222222222222, PlaceID: 0x3333333333333333, Weight: 1000},
			Counter: 2, TimeMS: 1700000000001, Admin: 0x1111111111111111, Removed: true},
	}
	s.Known = []announcement{sampleAnnouncement()}
	return s.at(epoch.Settled(s.From, s.Records))
}

// formingState is sampleState before it was established.
func formingState() state {
	s := sampleState()
	s.Established, s.Opened, s.Epochs, s.Records = false, false, epoch.State{}, slices.Clone(s.Records)
	return s
}

func TestStateBytesAreFrozen(t *testing.T) {
	second := sampleState()
	second.Level = 2
	for name, s := range map[string]state{"state_v3.hex": sampleState(), "state_v4.hex": second} {
		want := golden(t, name)
		if got := appendState(nil, s); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded\n%x, want\n%x", name, got, want)
		}
		got, err := decodeState(want)
		if err != nil || !got.equal(s) {
			t.Errorf("%s: decoded %+v, %v", name, got, err)
		}
	}
}

// resealed is a state with some bytes changed, and a checksum to match.
func resealed(b []byte, change func([]byte)) []byte {
	b = bytes.Clone(b[:len(b)-4])
	change(b)
	return append(b, checksum(b)...)
}

func TestStateOfAReleaseToComeTellsItsLevel(t *testing.T) {
	b := golden(t, "state_v4.hex")
	later := resealed(b, func(b []byte) { b[0], b[1], b[3] = 9, 0xff, 7 })
	s, err := decodeState(later)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "level 7; this program serves up to 2") {
		t.Errorf("decoded with %v", err)
	}
	if want := sampleState(); s.Level != 7 || s.ClusterID != want.ClusterID || s.From != want.From || !s.Established {
		t.Errorf("its head is %+v", s)
	}
	for name, change := range map[string]func([]byte){
		"a later version at a level of ours": func(b []byte) { b[0] = 9 },
		"the level that is not written":      func(b []byte) { b[3] = 1 },
		"a level of a cluster that forms":    func(b []byte) { b[1] = 0 },
		"version 0":                          func(b []byte) { b[0] = 0 },
	} {
		if _, err := decodeState(resealed(b, change)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetaBytesAreFrozen(t *testing.T) {
	m := meta{announcement: sampleAnnouncement(), ClusterID: [16]byte{0xc1, 15: 0xff}, Established: true, Digest: 0x0123456789abcdef}
	second := m
	second.Weight = 250
	for name, m := range map[string]meta{"meta_v2.hex": m, "meta_v3.hex": second} {
		want := golden(t, name)
		if got := appendMeta(nil, m); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded\n%x, want\n%x", name, got, want)
		}
		if got, err := decodeMeta(want); err != nil || got != m {
			t.Errorf("%s: decoded %+v, %v", name, got, err)
		}
	}
}

func TestMetasNoNodeCouldHaveAreRefused(t *testing.T) {
	third := golden(t, "meta_v3.hex")
	weight := func(w byte, more ...byte) []byte {
		return append(append(bytes.Clone(third[:len(third)-2]), w>>7, w<<1), more...)
	}
	if m, err := decodeMeta(weight(125)); err != nil || m.Weight != 250 {
		t.Fatalf("weight %d, %v", m.Weight, err)
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"no weight":             third[:len(third)-2],
		"weight 0":              weight(0),
		"weight over the limit": append(bytes.Clone(third[:len(third)-2]), 0x03, 0xe9),
		"bytes left over":       weight(125, 0),
		"version 4":             append([]byte{4}, third[1:]...),
		"version 2 with more":   append([]byte{2}, third[1:]...),
	} {
		if _, err := decodeMeta(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStatesAndMetasOfTheReleaseBeforeAreRead(t *testing.T) {
	plain := sampleAnnouncement()
	plain.Boot, plain.Recovering = Boot{}, false
	want := sampleState()
	want.Known = []announcement{plain}
	if got, err := decodeState(golden(t, "state_v2.hex")); err != nil || !got.equal(sampleState()) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if got, err := decodeState(golden(t, "state_v1.hex")); err != nil || !got.equal(want) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if got, err := decodeMeta(golden(t, "meta_v1.hex")); err != nil || got.announcement != plain {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestLargestMetaFitsMemberlist(t *testing.T) {
	a := sampleAnnouncement()
	a.Zone, a.Endpoints.Host = strings.Repeat("z", maxZoneBytes), strings.Repeat("h", maxHostBytes)
	if n := len(appendMeta(nil, meta{announcement: a, Weight: ring.MaxWeight})); n != 400 || n > memberlist.MetaMaxSize {
		t.Errorf("%d bytes, memberlist takes %d", n, memberlist.MetaMaxSize)
	}
}

func TestDamagedStateIsNeverRead(t *testing.T) {
	good := appendState(nil, sampleState())
	for i := range good {
		for _, flip := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if _, err := decodeState(bad); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed by %#x: %v", i, flip, err)
			}
		}
		if _, err := decodeState(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestStatesNoNodeCouldHaveAreRefused(t *testing.T) {
	for name, change := range map[string]func(*state){
		"units not a power of two": func(s *state) { s.Units = 1000 },
		"no units":                 func(s *state) { s.Units = 0 },
		"more units than slots":    func(s *state) { s.Units = 2 * ring.Slots },
		"no replicas":              func(s *state) { s.N = 0 },
		"records out of order":     func(s *state) { s.Records[0], s.Records[1] = s.Records[1], s.Records[0] },
		"a node twice":             func(s *state) { s.Records[1].ID = s.Records[0].ID },
		"a record of node zero":    func(s *state) { s.Records[0].ID = 0 },
		"weight over the limit":    func(s *state) { s.Records[0].Weight = ring.MaxWeight + 1 },
		"zone over the limit":      func(s *state) { s.Records[0].Zone = strings.Repeat("z", maxZoneBytes+1) },
		"a record never made":      func(s *state) { s.Records[0].Counter = 0 },
		"counter over the limit":   func(s *state) { s.Records[0].Counter = epoch.MaxCounter + 1 },
		"announced node zero":      func(s *state) { s.Known[0].ID = 0 },
	} {
		s := formingState()
		change(&s)
		if _, err := decodeState(appendState(nil, s)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(appendState(nil, sampleState()))
	f.Add(appendState(nil, formingState()))
	second := sampleState()
	second.Level = 2
	f.Add(appendState(nil, second))
	f.Add(appendState(nil, state{From: 1, Constants: Constants{Units: 1, N: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 { // past the checksum, where decoding is put to the test
			body := b[:len(b)-4]
			b = append(bytes.Clone(body), checksum(body)...)
		}
		s, err := decodeState(b)
		if err != nil {
			return
		}
		if again := appendState(nil, s); b[0] >= firstVersion && !bytes.Equal(again, b) {
			t.Errorf("decoded and encoded again\n%x, was\n%x", again, b)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, meta{announcement: sampleAnnouncement()}))
	f.Add(appendMeta(nil, meta{announcement: sampleAnnouncement(), Weight: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again := appendMeta(nil, m); b[0] >= metaFirst && !bytes.Equal(again, b) {
			t.Errorf("decoded and encoded again\n%x, was\n%x", again, b)
		}
	})
}
