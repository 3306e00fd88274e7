package version

import (
	"errors"
	"testing"
)

// The vectors are those of the SipHash paper: key 00..0f, input 00, 01, 02...
func TestSipHashMatchesItsPaper(t *testing.T) {
	t.Parallel()
	var key MACKey
	input := make([]byte, 64)
	for i := range input {
		input[i] = byte(i)
		if i < len(key) {
			key[i] = byte(i)
		}
	}
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 2: 0x0d6c8009d9a94f5a, 15: 0xa129ca6149be45e5,
	} {
		h := newSipHash(key)
		h.write(input[:n])
		if got := h.sum(); got != want {
			t.Errorf("%d bytes: %016x, want %016x", n, got, want)
		}
	}
	whole := newSipHash(key)
	whole.write(input)
	want := whole.sum()
	for cut := range input {
		h := newSipHash(key)
		h.write(input[:cut])
		h.write(input[cut:])
		if got := h.sum(); got != want {
			t.Errorf("cut at %d: %016x, want %016x", cut, got, want)
		}
	}
}

func sampleToken() Token {
	return Token{HLC: HLCFromMS(1_700_000_000_000), Context: Context{{0xa1, 1, 9}, {0xa1, 12, 12}, {0xb2, 4, 300}}}
}

func TestTokenIsBoundToItsKeyAndCluster(t *testing.T) {
	t.Parallel()
	key, mac := []byte("cart:7"), MACKey{1, 2, 3}
	tok := SealToken([]byte("x"), key, sampleToken(), mac)[1:]
	got, err := OpenToken(key, tok, mac)
	if err != nil || got.HLC != sampleToken().HLC || !got.Context.Equal(sampleToken().Context) {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := OpenToken([]byte("cart:8"), tok, mac); !errors.Is(err, ErrBadToken) {
		t.Errorf("another key: %v", err)
	}
	if _, err := OpenToken(key, tok, MACKey{1, 2, 4}); !errors.Is(err, ErrBadToken) {
		t.Errorf("another cluster: %v", err)
	}
	for i := range tok {
		bent := append([]byte(nil), tok...)
		bent[i] ^= 1
		if _, err := OpenToken(key, bent, mac); !errors.Is(err, ErrBadToken) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := OpenToken(key, tok[:i], mac); !errors.Is(err, ErrBadToken) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	// The border between key and body must not be movable.
	if _, err := OpenToken(append([]byte("cart:7"), tok[0]), tok[1:], mac); !errors.Is(err, ErrBadToken) {
		t.Errorf("shifted border: %v", err)
	}
}

// X writes v1 and Y writes v2 with the same empty past. Y goes on with its reply
// token; v1, which Y never saw, must outlive that.
func TestPutTokenSparesUnseenSiblings(t *testing.T) {
	t.Parallel()
	put := func(r Record, n uint64, c Context) (Record, Outcome) {
		r, out, err := Apply(r, Op{Kind: OpSet, Value: []byte{byte('0' + n)}, Explicit: true, Context: c}, Mint{NowMS: 1, HLC: HLC(n), Dot: Dot{7, n}})
		if err != nil || !out.Applied {
			t.Fatalf("put %d: %v %v", n, out, err)
		}
		return r, out
	}
	r, x := put(Record{}, 1, nil)
	r, y := put(r, 2, nil)
	if x.Live != 1 || y.Live != 2 {
		t.Errorf("live %d then %d, want 1 then 2", x.Live, y.Live)
	}
	if y.Token.Context.Contains(Dot{7, 1}) || !y.Token.Context.Contains(Dot{7, 2}) {
		t.Errorf("token of Y: %v", y.Token.Context)
	}
	r, y = put(r, 3, y.Token.Context)
	if y.Live != 2 || r.find(Dot{7, 1}) < 0 {
		t.Errorf("v1 died unseen: %v", r)
	}
	read := r.ReadToken()
	r, z := put(r, 4, read.Context)
	if z.Live != 1 || len(r.Versions) != 1 {
		t.Errorf("a write with a read token left %v", r)
	}
	if z.Token.HLC < z.HLC || read.HLC != 3 {
		t.Errorf("token clocks: read %d, write %d below %d", read.HLC, z.Token.HLC, z.HLC)
	}
	if r, z = put(r, 5, z.Token.Context); len(z.Token.Context) != 1 {
		t.Errorf("token grew along one lineage: %v of %v", z.Token.Context, r)
	}
}

// A token grows by one span per unseen sibling and shrinks again.
func TestDeleteTokenSparesUnseenSiblings(t *testing.T) {
	t.Parallel()
	r := Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1}).Put(Write{Dot: Dot{1, 2}, HLC: 2})
	del := Op{Kind: OpDelete, Explicit: true, Context: Context{{1, 2, 2}}}
	r, out, err := Apply(r, del, Mint{NowMS: 1, HLC: 9, Dot: Dot{1, 3}})
	if err != nil || !out.Applied || out.Live != 1 || out.Dot != (Dot{}) {
		t.Fatalf("got %+v, %v", out, err)
	}
	if !out.Token.Context.Equal(Context{{1, 2, 2}}) || out.Token.HLC != 9 {
		t.Errorf("token %v", out.Token)
	}
	if again, out, _ := Apply(r, del, Mint{NowMS: 1, HLC: 9, Dot: Dot{1, 3}}); out.Applied || !again.Equal(r) {
		t.Errorf("a repeated delete was applied: %+v", out)
	}
}

// W has replaced w with u, which Y has not seen. Y's token must not speak for w:
// where u has not come yet, w would be dropped and nothing be there in its place.
func TestPutTokenSparesWhatUnseenSiblingsReplaced(t *testing.T) {
	t.Parallel()
	w, u, y := Dot{7, 1}, Dot{7, 2}, Dot{7, 3}
	held := Record{}.Put(Write{Dot: w, HLC: 1}).Put(Write{Dot: u, HLC: 2, Cover: Context{{7, 1, 1}}}).Put(Write{Dot: y, HLC: 3})
	tok := held.PutToken(y, nil)
	if want := (Context{{7, 3, 3}}); !tok.Context.Equal(want) {
		t.Errorf("token %v, want %v", tok.Context, want)
	}
	elsewhere := Record{}.Put(Write{Dot: w, HLC: 1})
	if r := elsewhere.Put(Write{Dot: Dot{8, 1}, HLC: 4, Cover: tok.Context}); r.find(w) < 0 {
		t.Errorf("w is gone and u is not there: %v", r)
	}
	if tok := held.PutToken(Dot{7, 9}, nil); len(tok.Context) > 0 {
		t.Errorf("a delete that saw nothing got %v", tok.Context)
	}
}

func TestPutTokenStaysSmallBesideAnUnseenSibling(t *testing.T) {
	t.Parallel()
	r := Record{}.Put(Write{Dot: Dot{9, 1}, HLC: 1})
	var seen Context
	for n := uint64(1); n < 10_000; n++ { // every other counter goes to another key
		dot := Dot{7, 2 * n}
		r = r.Put(Write{Dot: dot, HLC: HLC(n), Cover: seen})
		if seen = r.PutToken(dot, seen).Context; len(seen) > maxTokenSpans {
			t.Fatalf("%d spans after %d writes", len(seen), n)
		}
	}
	if seen.Contains(Dot{9, 1}) || len(r.Versions) != 2 {
		t.Errorf("the sibling died unseen: %v", r)
	}
}
