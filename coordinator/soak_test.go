package coordinator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// holders counts the nodes that know the dot of a write, as a copy of their own
// or as a hint.
func (r *rig) holders(key string, d version.Dot) int {
	held := 0
	for _, n := range r.nodes {
		n.mu.Lock()
		for k, rec := range n.mu.rows {
			if k.key == key && rec.Context.Contains(d) {
				held++
				break
			}
		}
		n.mu.Unlock()
	}
	return held
}

// misbehave gives a random node a random fault, delay or reputation.
func (r *rig) misbehave(rng *rand.Rand) {
	n := r.nodes[r.ids[rng.IntN(len(r.ids))]]
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.fault = []fault{healthy, healthy, healthy, unreachable, silent, deaf, dying, dyingDeaf, overloaded, broken}[rng.IntN(10)]
	n.mu.delay = time.Duration(rng.IntN(4)) * time.Duration(rng.IntN(40)) * time.Millisecond
	n.mu.latency = time.Duration(rng.IntN(20)) * time.Millisecond
	clear(n.mu.down)
	for _, id := range r.ids {
		if id != n.id && rng.IntN(4) == 0 {
			n.mu.down[id] = true
		}
	}
	n.mu.mintErr = nil
	if rng.IntN(10) == 0 {
		n.mu.mintErr = version.ErrCorrupt
	}
}

// tally is what the clients of a soak were told.
type tally struct {
	sync.Mutex
	acked, refused, uncertain, read, readFailed int
}

func (y *tally) write(t *testing.T, r *rig, seed uint64, k, v string, w int, res WriteResult, err error) {
	mints := int64(0)
	if c, ok := r.minted.Load(v); ok {
		mints = c.(*atomic.Int64).Load()
	}
	y.Lock()
	defer y.Unlock()
	var uncertain *UncertainError
	switch {
	case mints > 1:
		t.Errorf("seed %d: %s was minted %d times (%v)", seed, v, mints, err)
	case err == nil:
		y.acked++
		if held := r.holders(k, res.Dot); held < w {
			t.Errorf("seed %d: %s is acknowledged and on %d nodes, W is %d", seed, v, held, w)
		}
	case errors.As(err, &uncertain):
		y.uncertain++
	case errors.Is(err, ErrNoReplicas), errors.Is(err, ErrOverloaded):
		y.refused++
		if mints > 0 {
			t.Errorf("seed %d: %s was minted, the client was told %v", seed, v, err)
		}
	default:
		t.Errorf("seed %d: unexpected %v", seed, err)
	}
}

func TestRandomFaultsNeverBreakAnAnswer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for round := range uint64(6) {
		seed += round
		var y tally
		inBubble(t, 3+2*int(round%2), Config{}, func(t *testing.T, r *rig) {
			var clients sync.WaitGroup
			for client := range 6 {
				rng := rand.New(rand.NewPCG(seed, uint64(client)))
				clients.Go(func() {
					for i := range 150 {
						if rng.IntN(8) == 0 {
							r.misbehave(rng)
						}
						n := r.nodes[r.ids[rng.IntN(len(r.ids))]]
						k := fmt.Sprintf("k%d", rng.IntN(5))
						if rng.IntN(3) == 0 {
							_, err := n.read(k, ReadOptions{R: 1 + rng.IntN(3)})
							y.Lock()
							if y.read++; err != nil {
								y.readFailed++
							}
							y.Unlock()
							continue
						}
						v, w := fmt.Sprintf("%d.%d", client, i), 1+rng.IntN(3)
						op := set(v)
						if rng.IntN(4) == 0 {
							op.Kind = version.OpAppend
						}
						res, err := n.write(k, op, WriteOptions{W: w})
						y.write(t, r, seed, k, v, w, res, err)
					}
				})
			}
			clients.Wait()
		})
		t.Logf("seed %d: %d acked, %d refused, %d uncertain; %d reads, %d failed", seed, y.acked, y.refused, y.uncertain, y.read, y.readFailed)
		if y.acked < 20 || y.refused == 0 || y.uncertain == 0 || y.readFailed == 0 {
			t.Errorf("seed %d: the faults are too tame or too wild", seed)
		}
	}
}
