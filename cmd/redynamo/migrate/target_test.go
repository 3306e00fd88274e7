package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

// of makes a server say that it is of a cluster: it answers nothing to INFO redynamo.
func of(cluster string) func([]byte) []byte {
	text := "# redynamo\r\nnode_id:1\r\ncluster_id:" + cluster + "\r\n"
	return func(said []byte) []byte {
		return bytes.ReplaceAll(said, []byte("$0\r\n\r\n"), fmt.Appendf(nil, "$%d\r\n%s\r\n", len(text), text))
	}
}

// TestAStateIsOfOneCluster stops an import, and goes on into another cluster, and into
// the same one at another address.
func TestAStateIsOfOneCluster(t *testing.T) {
	from, to := bench(t)
	other := startServer(t)
	one, again, two := startFront(t, to.addr, of("one")), startFront(t, to.addr, of("one")), startFront(t, other.addr, of("two"))
	for way, cfg := range ways(t, from, to) {
		to.do(t, "FLUSHALL")
		cfg.To.Addrs = []string{one.addr()}
		ctx, stop := context.WithCancel(t.Context())
		cfg.Progress = func(float64, *Counts) { stop() }
		first, err := Run(ctx, cfg)
		if !errors.Is(err, context.Canceled) || first.Written == 0 {
			t.Fatalf("%s: %+v, %v", way, first, err)
		}
		cfg.Progress, cfg.To.Addrs = nil, []string{two.addr()}
		if _, err := Run(t.Context(), cfg); !errors.Is(err, errOther) {
			t.Errorf("%s: into another cluster: %v", way, err)
		}
		cfg.To.Addrs = []string{again.addr()}
		got, err := Run(t.Context(), cfg)
		if err != nil || got.Before.Written != first.Written || got.Written+got.Kept < 1000 {
			t.Errorf("%s: %+v, %v", way, got, err)
		}
		if got := to.do(t, "DBSIZE"); got != int64(1000) {
			t.Errorf("%s: %v keys", way, got)
		}
	}
	if got := other.do(t, "DBSIZE"); got != int64(0) {
		t.Errorf("%v keys in the other cluster", got)
	}
}

// TestAllAddressesAreOfOneCluster has an address of another cluster, and one that comes
// to be another cluster's on the way.
func TestAllAddressesAreOfOneCluster(t *testing.T) {
	const keys = 40 * pageKeys
	from, other := twins(t, keys)
	other.do(t, "FLUSHALL")
	to := startServer(t)
	one, two := startFront(t, to.addr, of("one")), startFront(t, other.addr, of("two"))
	cfg := ways(t, from, to)["server"]
	cfg.To.Addrs = []string{one.addr(), two.addr()}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, errForeign) {
		t.Errorf("addresses of two clusters: %v", err)
	}
	cfg.To.Addrs = []string{one.addr()}
	one.mu.Lock()
	one.mu.then = of("two")
	one.mu.Unlock()
	cfg.Progress = func(float64, *Counts) { one.switchTo(other.addr) }
	if _, err := Run(t.Context(), cfg); !errors.Is(err, errForeign) {
		t.Errorf("a cluster in the place of another: %v", err)
	}
	if got := other.do(t, "DBSIZE"); got != int64(0) {
		t.Errorf("%v keys in the other cluster", got)
	}
}

func TestANodeWithoutAClusterIsNotWrittenTo(t *testing.T) {
	from, to := bench(t)
	f := startFront(t, to.addr, func(said []byte) []byte {
		return bytes.ReplaceAll(said, []byte("$0\r\n\r\n"), []byte("$9\r\nnode_id:1\r\n"))
	})
	cfg := ways(t, from, to)["file"]
	cfg.To.Addrs = []string{f.addr()}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, errForming) {
		t.Error(err)
	}
}
