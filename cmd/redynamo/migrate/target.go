package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
)

// target is the cluster that is written to. Each connection is asked where it leads: an
// address may be another cluster's, or come to be.
type target struct {
	mu struct {
		sync.Mutex
		cluster string // its cluster_id; empty: it tells none
		known   bool
	}
}

// errForeign ends an import whose addresses lead to several clusters.
var errForeign = errors.New("another cluster answers here")

// errForming is of a node that has no cluster yet.
var errForming = errors.New("the node has no cluster yet")

// greet asks a new connection which cluster it leads to. The first one decides.
func (t *target) greet(ctx context.Context, c *redis.Conn) error {
	info, err := c.Info(ctx, "redynamo").Result()
	if err != nil {
		return err
	}
	cluster := infoField(info, "cluster_id")
	if cluster == "" && infoField(info, "node_id") != "" {
		return errForming
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.known {
		t.mu.cluster, t.mu.known = cluster, true
	}
	if cluster != t.mu.cluster {
		return fmt.Errorf("%w: %q, and the others are of %q", errForeign, cluster, t.mu.cluster)
	}
	return nil
}

func (t *target) cluster() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.cluster
}
