package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// order is a change of the state that the goroutine of Run is to make.
type order struct {
	change func(*loop) (state, error) // nil if a state is to be joined
	heard  state                      // another node's
	done   chan error                 // takes one answer without waiting
}

// Apply takes in member records that an administrator changed. When it returns nil
// they are saved here and published; the others hear of them by gossip. It answers
// ErrNotTaken if other records of these nodes win, or there would be too many.
func (m *Membership) Apply(ctx context.Context, records []ring.Record) error {
	err := m.order(ctx, func(l *loop) (state, error) { return l.state.amend(records), nil })
	if err != nil {
		return err
	}
	kept := m.View().Records
	for _, r := range records {
		if !slices.Contains(kept, r) {
			return fmt.Errorf("%w: node %v", ErrNotTaken, r.ID)
		}
	}
	return nil
}

// errForming says that there is no ring to change yet.
var errForming = errors.New("the cluster is not established yet")

// HearEpoch takes in the epochs of another node, as EpochState gave them there. When it
// returns nil they are saved and published.
func (m *Membership) HearEpoch(ctx context.Context, epochs []byte) error {
	in, err := epoch.Decode(epochs)
	if err != nil {
		return fmt.Errorf("membership: epochs of another node: %w", err)
	}
	return m.order(ctx, func(l *loop) (state, error) { return l.state.at(l.state.Epochs.Merge(in)), nil })
}

// Hear takes in what another node holds, as State gave it there, as if gossip had brought
// it: what gossip does not take is not taken. When it returns nil, what was taken is saved
// and published.
func (m *Membership) Hear(ctx context.Context, b []byte) error {
	in, err := decodeState(b)
	if err != nil && !errors.Is(err, ErrNewer) { // the loop knows what to make of a level
		m.metrics.unreadable.Inc()
		return fmt.Errorf("membership: state of another node: %w", err)
	}
	return m.place(ctx, order{heard: in, done: make(chan error, 1)})
}

// State is what this node gives to others in an exchange: what it has saved. It is the
// same slice until something in it changes. Do not modify.
func (m *Membership) State() []byte { return m.current.Load().wire }

// EpochState is what this node holds of the epochs, encoded, and saved; nil until the
// cluster is established. Do not modify.
func (m *Membership) EpochState() []byte { return m.current.Load().epochs }

// Nudge says that Config.Local has something new to tell. It does not block.
func (m *Membership) Nudge() {
	select {
	case m.kick <- struct{}{}:
	default: // it will be asked anyway
	}
}

// order has the goroutine of Run change the state, and returns when that is published.
func (m *Membership) order(ctx context.Context, change func(*loop) (state, error)) error {
	return m.place(ctx, order{change: change, done: make(chan error, 1)})
}

// place hands an order to the goroutine of Run, and waits until it is carried out.
func (m *Membership) place(ctx context.Context, o order) error {
	select {
	case m.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// carryOut carries out an order.
func (l *loop) carryOut(ctx context.Context, o order) error {
	if !l.state.Established {
		o.done <- fmt.Errorf("membership: %w", errForming)
		return nil
	}
	if o.change == nil {
		if err := l.receive(ctx, o.heard); err != nil {
			o.done <- err
			return err
		}
	} else {
		next, err := o.change(l)
		if err != nil {
			o.done <- err
			return nil
		}
		if err := l.advance(next); err != nil {
			o.done <- err
			return err
		}
	}
	if l.dirty {
		l.publish()
		l.dirty, l.further = false, false
	}
	o.done <- nil
	return nil
}

// transition takes the steps from ring to ring that may be taken.
func (l *loop) transition(next state) state {
	if !next.Established {
		return next
	}
	return next.at(next.Epochs.Advance(l.local()))
}

// local is how far this node is.
func (l *loop) local() epoch.Local {
	if l.cfg.Local != nil {
		return l.cfg.Local()
	}
	shown := l.View().Epoch
	if shown == nil {
		return epoch.Local{}
	}
	return epoch.Local{Drained: shown.Number, Sent: shown.Transfer.Target}
}

// moving reports whether the ring is changing.
func (l *loop) moving() bool { return l.state.Established && !l.state.Epochs.Settled() }
