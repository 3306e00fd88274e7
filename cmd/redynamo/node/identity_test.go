package node

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/simdisk"
	"github.com/redynamo/redynamo/replica/storage"
)

// goldenIdentities are identities with their bytes, field by field as drawn at
// the type: version, node, boots, ahead, flags, crc. A line that has to change means a new
// version byte.
var goldenIdentities = []struct {
	id   identity
	text string
}{
	{identity{node: 0x0102030405060708, boots: 3, ahead: 0x99, recovering: true}, "02 0102030405060708 0000000000000003 0000000000000099 01 0ff9cb12"},
	{identity{node: 1, boots: 0}, "02 0000000000000001 0000000000000000 0000000000000000 00 84a2d3a3"},
	{identity{node: 1<<64 - 1, boots: 1<<64 - 1, ahead: 1<<64 - 1}, "02 ffffffffffffffff ffffffffffffffff ffffffffffffffff 00 c0011602"},
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIdentityHasTheBytesDrawn(t *testing.T) {
	for _, c := range goldenIdentities {
		want := unhex(t, c.text)
		if got := c.id.encode(); string(got) != string(want) {
			t.Errorf("%+v is\n%x, want\n%x", c.id, got, want)
		}
		if got, err := decodeIdentity(want); err != nil || got != c.id {
			t.Errorf("%x is %+v, %v; want %+v", want, got, err, c.id)
		}
	}
}

func TestAnIdentityOfTheReleaseBeforeIsRead(t *testing.T) {
	want := identity{node: 0x0102030405060708, boots: 3}
	if got, err := decodeIdentity(unhex(t, "01 0102030405060708 0000000000000003 dea7378b")); err != nil || got != want {
		t.Errorf("read as %+v, %v; want %+v", got, err, want)
	}
}

func TestDamagedIdentitiesAreRefused(t *testing.T) {
	whole := identity{node: 0x0102030405060708, boots: 3}.encode()
	for at := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			if id, err := decodeIdentity(b); !errors.Is(err, errIdentity) {
				t.Errorf("bit %d of byte %d flipped: %+v, %v", bit, at, id, err)
			}
		}
		if id, err := decodeIdentity(whole[:at]); !errors.Is(err, errIdentity) {
			t.Errorf("cut to %d bytes: %+v, %v", at, id, err)
		}
	}
	if _, err := decodeIdentity(append(whole, 0)); !errors.Is(err, errIdentity) {
		t.Errorf("one byte too many: %v", err)
	}
	// Node 0 is nobody, even with a right checksum.
	if _, err := decodeIdentity(identity{boots: 1}.encode()); !errors.Is(err, errIdentity) {
		t.Errorf("node 0: %v", err)
	}
}

func FuzzIdentity(f *testing.F) {
	for _, c := range goldenIdentities {
		f.Add(c.id.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err == nil && b[0] == identityVersion && string(id.encode()) != string(b) {
			t.Errorf("%x is read as %+v and written as %x", b, id, id.encode())
		}
	})
}

// opened runs f with the store on disk.
func opened(t *testing.T, disk vfs.FS, f func(*storage.Store)) {
	t.Helper()
	s, err := storage.Open(storage.Config{FS: simdisk.Of(disk), Dir: "d"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	f(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryKeepsItsNodeAndCountsItsBoots(t *testing.T) {
	disk := vfs.NewCrashableMem()
	draws := []uint64{0, 0, 42, 43} // 0 is no node
	random := func() uint64 {
		v := draws[0]
		draws = draws[1:]
		return v
	}
	for boots := uint64(1); boots <= 3; boots++ {
		opened(t, disk, func(s *storage.Store) {
			id, err := boot(s, 0, false, random)
			if err != nil || id != (identity{node: 42, boots: boots}) {
				t.Fatalf("boot %d is %+v, %v; want node 42", boots, id, err)
			}
			// Counted durably before boot returns: a crash now does not lose it.
			disk = disk.CrashClone(vfs.CrashCloneCfg{})
		})
	}
}

func TestADamagedIdentityEndsTheBootAndStays(t *testing.T) {
	disk := vfs.NewMem()
	opened(t, disk, func(s *storage.Store) {
		if err := s.SetMeta(identityRow, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		random := func() uint64 { t.Error("a new node is drawn for a directory that has one"); return 1 }
		if _, err := boot(s, 0, false, random); !errors.Is(err, errIdentity) {
			t.Errorf("boot: %v, want the identity refused", err)
		}
		if b, err := s.Meta(identityRow); string(b) != "garbage" || err != nil {
			t.Errorf("the row is now %q, %v", b, err)
		}
	})
}

func TestAMetaRowThatWasNeverSavedLoadsAsNothing(t *testing.T) {
	opened(t, vfs.NewMem(), func(s *storage.Store) {
		m := metaStore{store: s, row: "membership"}
		if b, err := m.Load(); b != nil || err != nil {
			t.Errorf("before the first save: %q, %v", b, err)
		}
		if err := m.Save([]byte("state")); err != nil {
			t.Fatal(err)
		}
		if b, err := m.Load(); string(b) != "state" || err != nil {
			t.Errorf("after it: %q, %v", b, err)
		}
	})
}
