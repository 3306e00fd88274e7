package admission

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// A node as a model: whatever runs has its one core for itself until it is done, first
// come first served. That is worse than a real one, and the same each time.
const (
	modelClients = 4
	modelThink   = 20 * time.Millisecond // of a client between two requests, on average
	modelRequest = time.Millisecond
	modelPiece   = 4 * time.Millisecond
	modelFor     = 30 * time.Second // what is measured, after as much without work and a third with it
)

// model is what clients and work of three kinds came to beside each other.
type model struct {
	quiet, beside time.Duration // p99 of clients without work, and with it
	busy          [kinds]time.Duration
}

// runModel has clients alone at first, and then work that never ends.
func runModel(t *testing.T, multiple float64) (m model) {
	bubble.Test(t, func(t *testing.T) {
		c, err := New(Config{Multiple: multiple, LeastGoal: modelRequest})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		core := make(chan struct{}, 1)
		use := func(d time.Duration) {
			core <- struct{}{}
			time.Sleep(d)
			<-core
		}
		var mu sync.Mutex
		var took []time.Duration
		for i := range modelClients {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for ctx.Err() == nil {
					time.Sleep(time.Duration(rng.ExpFloat64() * float64(modelThink)))
					began := time.Now()
					use(modelRequest)
					c.Ended(Client, time.Since(began))
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
			})
		}
		p99 := func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(took)
			defer func() { took = nil }()
			return took[len(took)*99/100]
		}
		time.Sleep(modelFor)
		m.quiet = p99()
		var busy [kinds]time.Duration // each of one goroutine, and read when that sleeps
		for _, k := range []Kind{Receive, Exchange, Scrub} {
			wg.Go(func() {
				for {
					end, err := c.Slice(ctx, k)
					if err != nil {
						return
					}
					use(modelPiece)
					mu.Lock()
					busy[k] += modelPiece
					mu.Unlock()
					end(0)
				}
			})
		}
		time.Sleep(modelFor / 3)
		p99()
		mu.Lock()
		before := busy
		mu.Unlock()
		time.Sleep(modelFor)
		m.beside = p99()
		mu.Lock()
		for k := range busy {
			m.busy[k] = busy[k] - before[k]
		}
		mu.Unlock()
		cancel()
		wg.Wait()
	})
	return m
}

// TestClientsWaitLessForWorkThatIsHeldBack compares a node that holds work back with
// one that does not. What it has to do gets a twentieth of the time all the same: a
// piece counts as busy while it waits for the core, too.
func TestClientsWaitLessForWorkThatIsHeldBack(t *testing.T) {
	free, held := runModel(t, -1), runModel(t, 1.5)
	t.Logf("p99 %v without work; %v beside work, %v beside work that is held back", held.quiet, free.beside, held.beside)
	t.Logf("busy in %v: %v, and %v held back", modelFor, free.busy, held.busy)
	if free.beside < 3*held.quiet {
		t.Errorf("the model shows no harm: p99 %v without work, %v beside it", held.quiet, free.beside)
	}
	if held.beside > free.beside/2 {
		t.Errorf("p99 is %v beside work that is held back, %v beside work that is not", held.beside, free.beside)
	}
	for _, k := range []Kind{Receive, Exchange, Scrub} {
		if held.busy[k] < modelFor/20 {
			t.Errorf("work to %v had %v of %v", k, held.busy[k], modelFor)
		}
	}
}
