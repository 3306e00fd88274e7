package integration

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

const rotLogWrites = 10 * time.Second

// The log of the node that was there first begins with a ring of itself alone. When that
// is all that is left of it, what the node took by it would lie on its own disk only.
func TestAFounderThatHasLostItsLogTakesNothingAloneInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 1, 1)
		defer c.close()
		first := c.nodes[0].disk.CrashClone(vfs.CrashCloneCfg{})
		for i := 1; i < 5; i++ {
			c.nodes = append(c.nodes, &simNode{host: fmt.Sprintf("10.0.0.%d", i+1), disk: vfs.NewCrashableMem()})
			c.start(i)
		}
		for i := range c.nodes {
			c.awaitReady(i)
		}
		c.awaitRest()
		time.Sleep(time.Minute)
		c.crash(0)
		if err := copyFile(c.nodes[0].disk, first, "/data/store/REACH"); err != nil {
			t.Fatal(err)
		}
		c.nodes[0].disk = first
		c.start(0)
		if _, is := c.nodes[0].node.Recovering(); !is {
			t.Fatal("the node does not know that its log has lost something")
		}
		if st := fieldsOf(c.must(0, "RING", "STATUS")); fmt.Sprint(st["n"]) != "1" {
			t.Fatalf("the node knows a ring of %v owners: this tests nothing", st["n"])
		}
		until := time.Now().Add(rotLogWrites)
		var clients sync.WaitGroup
		for i := range c.nodes {
			clients.Go(func() { c.writeBeside(i, until) })
		}
		clients.Wait()
		c.awaitReady(0)
	})
}

// copyFile makes a file of one disk that of another.
func copyFile(from, to *vfs.MemFS, name string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(in)
	if err = errors.Join(err, in.Close()); err != nil {
		return err
	}
	out, err := to.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return errors.Join(err, out.Sync(), out.Close())
}

// writeBeside writes keys through node i, and looks for each acknowledged one on the
// disks of all nodes but node 0.
func (c *simCluster) writeBeside(i int, until time.Time) {
	for n := 0; time.Now().Before(until); n++ {
		key := fmt.Sprintf("beside:%d:%d", i, n)
		if _, err := c.try(i, "SET", key, "v"); err != nil {
			continue
		}
		c.disks.Lock()
		var rest []*vfs.MemFS
		for _, s := range c.nodes[1:] {
			rest = append(rest, s.disk.CrashClone(vfs.CrashCloneCfg{}))
		}
		c.disks.Unlock()
		held := slices.ContainsFunc(rest, func(disk *vfs.MemFS) bool {
			rows, err := readDisk(disk, []string{key})
			if err != nil {
				c.t.Errorf("seed %d: %v", c.seed, err)
			}
			return len(rows[key]) > 0
		})
		if !held {
			c.t.Errorf("seed %d: %s is acknowledged and on no disk but that of node 0", c.seed, key)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
