package integration

import (
	"fmt"
	"reflect"
	"syscall"
	"testing"
	"time"
)

// TestWaitCountsTheOwnersThatHoldTheLastWriteInVirtualTime has one owner of three cut
// off, for every kind of write.
func TestWaitCountsTheOwnersThatHoldTheLastWriteInVirtualTime(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		writes := [][]string{{"SET", "k", "v"}, {"INCR", "n"}, {"EXPIRE", "k", "1000"}, {"DEL", "k"}, {"SETBIT", "b", "7", "1"}, {"VCTX.SET", "x", "v", ""}}
		asks := func(want int64, aof []any) {
			t.Helper()
			for _, write := range writes {
				cl := c.mustDial(0)
				for _, words := range [][]string{{"SET", "k", "v"}, write} {
					if _, err := cl.do(words...); err != nil {
						t.Fatal(words, err)
					}
				}
				if got, err := cl.do("WAIT", "3", "3000"); got != want || err != nil {
					t.Errorf("WAIT after %v: %v, %v, want %d", write, got, err, want)
				}
				if got, err := cl.do("WAITAOF", "1", "2", "3000"); !reflect.DeepEqual(got, aof) || err != nil {
					t.Errorf("WAITAOF after %v: %v, %v, want %v", write, got, err, aof)
				}
				_ = cl.conn.Close()
			}
		}
		asks(3, []any{int64(1), int64(2)})
		c.crash(2)
		asks(2, []any{int64(1), int64(1)})
		cl := c.mustDial(0)
		defer cl.conn.Close()
		if _, err := cl.do("SET", "k", "w"); err != nil {
			t.Fatal(err)
		}
		began, back := time.Now(), make(chan struct{})
		go func() {
			defer close(back)
			time.Sleep(5 * time.Second)
			c.start(2)
		}()
		if got, err := cl.do("WAIT", "3", "0"); got != int64(3) || err != nil || time.Since(began) < 5*time.Second {
			t.Errorf("WAIT until an owner is back: %v, %v after %v", got, err, time.Since(began))
		}
		<-back
	})
}

// TestWaitAOFCountsOwnersThatSynced has processes that sync every minute by themselves,
// and one of them stopped.
func TestWaitAOFCountsOwnersThatSynced(t *testing.T) {
	c := startProcesses(t, 3, "--fsync", "interval", "--fsync-interval", "1m")
	cl := c.client(0).Conn()
	defer func() { _ = cl.Close() }() // the test is over
	ctx := t.Context()
	if err := cl.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.Do(ctx, "WAITAOF", 1, 2, 5000).Result(); fmt.Sprint(got) != "[1 2]" || err != nil {
		t.Errorf("WAITAOF: %v, %v", got, err)
	}
	if err := c.nodes[2].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.nodes[2].cmd.Process.Signal(syscall.SIGCONT) }() // it may have ended
	if err := cl.Set(ctx, "k", "w", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.Do(ctx, "WAIT", 3, 1500).Result(); got != int64(2) || err != nil {
		t.Errorf("WAIT with an owner stopped: %v, %v", got, err)
	}
	if got, err := cl.Do(ctx, "WAITAOF", 1, 1, 5000).Result(); fmt.Sprint(got) != "[1 1]" || err != nil {
		t.Errorf("WAITAOF with an owner stopped: %v, %v", got, err)
	}
}
