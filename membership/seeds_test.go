package membership

import (
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestLoneClusterSaysThatItsSeedIsAnotherCluster(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.add(0), w.add(0)
		a.start()
		b.start()
		w.within(10*time.Second, "two clusters of one", func() bool { return united(a) && united(b) })
		b.stop()
		b.cfg.Join = []string{hostOf(0) + ":7946"} // too late: it misses nobody
		b.start()
		w.within(20*time.Second, "word of it", func() bool { return w.log.count("a node was refused") > 0 })
		if !united(a) || !united(b) || a.m.View().ClusterID == b.m.View().ClusterID {
			t.Error("the clusters did not stay what they were")
		}
	})
}
