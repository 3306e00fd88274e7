package simdisk

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestCopiesMayBeMadeAtAnyMoment(t *testing.T) {
	mem := vfs.NewCrashableMem()
	d := Disk{mem}
	const rounds = 5000
	f, err := d.Create("f0", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	var users sync.WaitGroup
	users.Go(func() {
		for i := range rounds {
			lock, err := d.Lock("LOCK")
			if err != nil || lock.Close() != nil || f.Close() != nil {
				t.Error(err)
				return
			}
			if f, err = d.ReuseForWrite(fmt.Sprintf("f%d", i), fmt.Sprintf("f%d", i+1), vfs.WriteCategoryUnspecified); err != nil {
				t.Error(err)
				return
			}
			if _, err := f.Write([]byte{byte(i)}); err != nil || f.Sync() != nil {
				t.Error(err)
				return
			}
		}
	})
	users.Go(func() {
		for range rounds {
			mem.CrashClone(vfs.CrashCloneCfg{})
		}
	})
	users.Wait()
	b, err := d.Open(fmt.Sprintf("f%d", rounds))
	if err != nil {
		t.Fatal(err)
	}
	info, err := b.Stat()
	if err != nil || info.Size() != 1 {
		t.Errorf("%d bytes, %v; want the one that was overwritten each time", info.Size(), err)
	}
}
