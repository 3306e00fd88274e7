package merkle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// goldenTree is pinned in testdata: hashes and layout may never change, since
// nodes of different releases compare trees.
func goldenTree() *Tree {
	t := New(MinLeaves)
	t.Update(0, 0, 0, 1)
	t.Update(12182, 0x12345678, 0, 0xfeedfacecafebeef)
	t.Update(16383, 0xffffffff, 0, 1<<63)
	return t
}

// unhex reads annotated hex: what follows '#' is a comment.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncodedTreeIsPinned(t *testing.T) {
	text, err := os.ReadFile("testdata/tree.hex")
	if err != nil {
		t.Fatal(err)
	}
	want, tree := unhex(t, string(text)), goldenTree()
	if got := tree.Append(nil); !bytes.Equal(got, want) {
		t.Errorf("encoded as\n%x, want\n%x", got, want)
	}
	if got, want := tree.Root(), uint64(0xb4cc6da77708dba3); got != want {
		t.Errorf("root %#x, want %#x", got, want)
	}
	decoded, err := Decode(want)
	if err != nil || !slices.Equal(decoded.nodes, tree.nodes) {
		t.Errorf("the pinned bytes decode to another tree: %v", err)
	}
}

func TestTreesRoundTrip(t *testing.T) {
	rnd := seedFor(t, 5)
	for range 30 {
		tree := randomModel(rnd, rnd.IntN(1000)).tree(randomLeaves(rnd))
		b := tree.Append([]byte("before"))
		got, err := Decode(b[len("before"):])
		if err != nil || !slices.Equal(got.nodes, tree.nodes) {
			t.Fatalf("%d leaves do not round trip: %v", tree.Leaves(), err)
		}
	}
}

func TestDamagedTreesAreRefused(t *testing.T) {
	b := goldenTree().Append(nil)
	for i := range b {
		for _, flip := range []byte{1, 0x80} {
			damaged := bytes.Clone(b)
			damaged[i] ^= flip
			if _, err := Decode(damaged); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
		}
		if _, err := Decode(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	for _, depth := range []int{0, 3, 11, 20} {
		b := append([]byte{version, byte(depth)}, make([]byte, 8<<depth)...)
		b = binary.BigEndian.AppendUint32(b, checksum(b))
		if _, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one byte more: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(goldenTree().Append(nil))
	f.Add(New(MaxLeaves).Append(nil))
	f.Add([]byte{1, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v", err)
			}
			// With a right checksum the rest of the decoder is reached.
			if len(b) < trailerBytes {
				return
			}
			body := b[:len(b)-trailerBytes]
			sum := checksum(body)
			b = append(bytes.Clone(body), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
			if tree, err = Decode(b); err != nil {
				return
			}
		}
		if !bytes.Equal(tree.Append(nil), b) {
			t.Fatalf("%x decodes and encodes to other bytes", b)
		}
	})
}
