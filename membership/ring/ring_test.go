package ring

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestZeroParamsAreTheDefaults(t *testing.T) {
	if got, want := mustRing(t, Params{}, nil).Params(), (Params{Units: 1024, N: 3}); got != want {
		t.Errorf("params %+v, want %+v", got, want)
	}
}

func TestInvalidClustersAreRefusedWithEveryFault(t *testing.T) {
	_, err := New(Params{Units: 1000, N: -1}, []Member{{ID: 0}, {ID: 4, Weight: 1001}, {ID: 4}, {ID: 5, Weight: -1}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, fault := range []string{"units (1000)", "n (-1)", "id zero", "0000000000000004 twice", "weight (1001)", "weight (-1)"} {
		if !strings.Contains(err.Error(), fault) {
			t.Errorf("%q does not name %q", err, fault)
		}
	}
	if _, err := New(Params{Units: 1}, cluster(0, MaxMembers+1, 1)); err == nil {
		t.Error("too many members accepted")
	}
	if _, err := New(Params{Units: 2 * Slots}, nil); err == nil {
		t.Error("more partitions than slots accepted")
	}
}

func TestRingWithoutStorageMembersHasNoOwners(t *testing.T) {
	r := mustRing(t, Params{}, []Member{{ID: 9}})
	if r.N() != 0 || len(r.Owners(1023)) != 0 || len(r.Fallbacks(0)) != 0 || len(r.Walk(nil, 0, nil)) != 0 {
		t.Error("a router owns something")
	}
	if runs := r.Runs(); len(runs) != 1 || runs[0].First != 0 || runs[0].Last != Slots-1 {
		t.Errorf("runs %v", runs)
	}
	if len(r.Members()) != 1 {
		t.Error("the router is no member")
	}
}

func TestEpochTellsApartWhateverMatters(t *testing.T) {
	base := func() []Member { return cluster(0, 4, 2) }
	seen := map[uint64]string{mustRing(t, Params{}, base()).Epoch(): "base"}
	for name, change := range map[string]func(p *Params, ms []Member) []Member{
		"units":    func(p *Params, ms []Member) []Member { p.Units = 2048; return ms },
		"n":        func(p *Params, ms []Member) []Member { p.N = 2; return ms },
		"n unused": func(p *Params, ms []Member) []Member { p.N = 4; return ms },
		"weight":   func(_ *Params, ms []Member) []Member { ms[2].Weight = 2; return ms },
		"zone":     func(_ *Params, ms []Member) []Member { ms[1].Zone = "elsewhere"; return ms },
		"place":    func(_ *Params, ms []Member) []Member { ms[1].PlaceID = 77; return ms },
		"id":       func(_ *Params, ms []Member) []Member { ms[1].PlaceID, ms[1].ID = ms[1].ID, 77; return ms },
		"router":   func(_ *Params, ms []Member) []Member { return append(ms, Member{ID: 78}) },
		"leave":    func(_ *Params, ms []Member) []Member { return ms[:3] },
	} {
		p := Params{}
		ms := change(&p, base())
		epoch := mustRing(t, p, ms).Epoch()
		if other, ok := seen[epoch]; ok {
			t.Errorf("%s and %s have the same epoch", name, other)
		}
		seen[epoch] = name
	}
}

func TestPartitionsAreEqualRangesOfSlots(t *testing.T) {
	for _, units := range []int{1, 64, 1024, 4096, Slots} {
		r := mustRing(t, Params{Units: units}, nil)
		next := 0
		for u := range units {
			first, last := r.SlotsOf(u)
			if int(first) != next || int(last)-int(first)+1 != Slots/units {
				t.Fatalf("%d units: partition %d is %d..%d", units, u, first, last)
			}
			for s := int(first); s <= int(last); s++ {
				if r.Partition(Slot(s)) != u {
					t.Fatalf("%d units: slot %d in partition %d, want %d", units, s, r.Partition(Slot(s)), u)
				}
			}
			next = int(last) + 1
		}
		if next != Slots {
			t.Fatalf("%d units cover %d slots", units, next)
		}
	}
}

func TestRunsCoverAllSlotsAndCannotBeJoined(t *testing.T) {
	rnd := seedFor(t, 13)
	for range 15 {
		r := mustRing(t, Params{}, randomCluster(rnd, 6))
		next := 0
		runs := r.Runs()
		for k, run := range runs {
			if int(run.First) != next {
				t.Fatalf("run %d begins at %d, want %d", k, run.First, next)
			}
			for s := int(run.First); s <= int(run.Last); s++ {
				if !slices.Equal(run.Owners, r.Owners(r.Partition(Slot(s)))) {
					t.Fatalf("slot %d has other owners than its run", s)
				}
			}
			if k > 0 && slices.Equal(run.Owners, runs[k-1].Owners) {
				t.Fatalf("runs %d and %d have the same owners", k-1, k)
			}
			next = int(run.Last) + 1
		}
		if next != Slots {
			t.Fatalf("runs end at slot %d", next)
		}
	}
}

func TestBalanceCountsWhatNodesCarry(t *testing.T) {
	r := mustRing(t, Params{}, unevenZones(cluster(0, 10, 1), 5, 3, 2))
	b := r.Balance()
	owned, headed := 0, 0
	replicas, heads := 1.0, 1.0
	for _, n := range b.Nodes {
		o, h := 0, 0
		for u := range r.Units() {
			if r.Owns(n.ID, u) {
				o++
			}
			if r.Owners(u)[0] == n.ID {
				h++
			}
		}
		if n.Owned != o || n.Headed != h {
			t.Errorf("%v owns %d and heads %d, counted %d and %d", n.ID, n.Owned, n.Headed, o, h)
		}
		owned, headed = owned+n.Owned, headed+n.Headed
		replicas, heads = min(replicas, n.Quota/float64(o)), min(heads, n.HeadQuota/float64(h))
	}
	if owned != 3*1024 || headed != 1024 || b.Zones != 3 {
		t.Errorf("%d owned, %d headed, %d zones", owned, headed, b.Zones)
	}
	if math.Abs(b.Replicas-replicas) > 1e-9 || math.Abs(b.Heads-heads) > 1e-9 {
		t.Errorf("efficiency %v and %v, counted %v and %v", b.Replicas, b.Heads, replicas, heads)
	}
	// Each zone holds a copy of everything, so the two nodes of the smallest
	// zone must hold half of it each.
	if q := b.Nodes[slices.IndexFunc(b.Nodes, func(l Load) bool { return l.Zone == "zone2" })].Quota; q != 512 {
		t.Errorf("quota in the zone of two: %v", q)
	}
}

func TestSlotsAreThoseOfRedisCluster(t *testing.T) {
	for _, c := range []struct {
		key  string
		slot Slot
	}{
		{"", 0},
		{"foo", 12182},
		{"bar", 5061},
		{"123456789", 0x31C3 % Slots},
		{"{user1000}.following", 3443},
		{"{user1000}.followers", 3443},
		{"user1000", 3443},
		{"foo{bar}baz", 5061},
		{"foo{}{bar}", 8363}, // an empty tag is none, and no later one counts
		{"foo{{bar}}zap", SlotOf([]byte("{bar"))},
		{"foo{bar}{zap}", 5061},
		{"foo{bar", crc16([]byte("foo{bar")) % Slots},
		{"foo}bar{", crc16([]byte("foo}bar{")) % Slots},
		{"}{bar}", 5061},
		{"{}", crc16([]byte("{}")) % Slots},
		{"{\x00}x", crc16([]byte{0}) % Slots},
	} {
		if got := SlotOf([]byte(c.key)); got != c.slot {
			t.Errorf("slot of %q is %d, want %d", c.key, got, c.slot)
		}
	}
	if got := crc16([]byte("123456789")); got != 0x31C3 {
		t.Errorf("CRC of the check string %#x, want 0x31C3", got)
	}
}

func TestKeyHashIsMurmur3(t *testing.T) {
	for key, want := range map[string]uint32{
		"":              0,
		"test":          0xba6bd213,
		"Hello, world!": 0xc0363e43,
		"The quick brown fox jumps over the lazy dog": 0x2e4ff723,
	} {
		if got := KeyHash([]byte(key)); got != want {
			t.Errorf("hash of %q is %#x, want %#x", key, got, want)
		}
	}
}

func TestNodeNamesRoundTrip(t *testing.T) {
	rnd := seedFor(t, 14)
	for range 200 {
		id := NodeID(rnd.Uint64() >> rnd.IntN(60))
		if id == 0 {
			continue
		}
		for _, s := range []string{id.String(), id.Hex40()} {
			if got, err := ParseNodeID(s); err != nil || got != id {
				t.Fatalf("ParseNodeID(%q) = %v, %v", s, got, err)
			}
		}
		if len(id.Hex40()) != 40 || strings.Trim(id.Hex40(), "0123456789abcdef") != "" {
			t.Fatalf("name %q is not 40 hexadecimal digits", id.Hex40())
		}
	}
	if got, want := NodeID(0xa1).Hex40(), "00000000000000a1"; !strings.HasPrefix(got, want) {
		t.Errorf("name %s does not begin with the id", got)
	}
	tampered := NodeID(7).String() + NodeID(8).Hex40()[16:]
	for _, s := range []string{"", "7", "0000000000000000", "000000000000000G", "00000000000000A1", "+000000000000001", tampered} {
		if id, err := ParseNodeID(s); err == nil {
			t.Errorf("ParseNodeID(%q) = %v", s, id)
		}
	}
}
