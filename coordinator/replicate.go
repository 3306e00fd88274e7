package coordinator

import (
	"errors"
	"time"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/ring"
)

// This file is the second half of a write: a dot is minted, the record must
// reach W nodes, and then all owners or their stand-ins.

type writeAction uint8

const (
	writeWait writeAction = iota
	writeSend
	writeSpares
	writeAnswer
	writeEnd
)

// run does what the kernel wants until it wants nothing. Requires: mu is held,
// and running is set if the caller is the one goroutine at work (which then
// owns it); run releases mu.
func (w *write) run() {
	for {
		action, send := w.nextLocked()
		switch action {
		case writeWait:
			w.mu.running = false
			w.mu.Unlock()
			return
		case writeSend:
			slot, deadline := w.slotLocked(send), w.sendDeadlineLocked(send)
			w.mu.Unlock()
			w.send(send, slot, deadline)
		case writeSpares:
			in, _ := w.mu.NeedsSpares()
			w.mu.Unlock()
			spares := w.c.liveFallbacks(w.owed[in], w.partition)
			w.mu.Lock()
			w.mu.Spares(in, spares)
			continue
		case writeAnswer:
			res, err := w.resultLocked()
			w.mu.Unlock()
			w.ended(err)
			done := w.done
			w.done = nil
			done(res, err)
		case writeEnd:
			w.mu.Unlock()
			w.recycle()
			return
		}
		w.mu.Lock()
	}
}

// resume lets the kernel go on after it was fed. Requires: mu is held; resume
// releases it. A second goroutine leaves the work to the first.
func (w *write) resume() {
	if w.mu.running {
		w.mu.Unlock()
		return
	}
	w.mu.running = true
	w.run()
}

// nextLocked picks what to do next: send first, then answer, then look for
// stand-ins.
func (w *write) nextLocked() (writeAction, quorum.Send) {
	if !w.mu.noop {
		if send, ok := w.mu.Next(); ok {
			w.mu.refs++
			return writeSend, send
		}
	}
	if !w.mu.answered && w.decidedLocked() {
		w.mu.answered = true
		if w.mu.armed && w.timer.Stop() {
			w.mu.armed = false
			w.mu.refs--
		}
		return writeAnswer, quorum.Send{}
	}
	switch {
	case !w.mu.noop && w.needsSparesLocked():
		return writeSpares, quorum.Send{}
	case w.mu.answered && w.mu.refs == 0:
		return writeEnd, quorum.Send{}
	case !w.mu.answered && !w.mu.armed:
		w.armLocked()
	}
	return writeWait, quorum.Send{}
}

func (w *write) needsSparesLocked() bool {
	_, needs := w.mu.NeedsSpares()
	return needs
}

func (w *write) decidedLocked() bool {
	return w.mu.noop || w.mu.expired || w.mu.Verdict() != quorum.Pending
}

// resultLocked is the answer of a write that is decided or late. A dot has been
// minted, so what is not acknowledged is uncertain.
func (w *write) resultLocked() (WriteResult, error) {
	if w.mu.noop || w.mu.Verdict() == quorum.Met {
		return w.result, nil
	}
	return WriteResult{}, &UncertainError{Acked: w.mu.Acked(), Want: w.w}
}

func (w *write) armLocked() {
	wait := time.Until(w.deadline)
	w.mu.armed = true
	w.mu.refs++
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.onTimer)
		return
	}
	w.timer.Reset(wait)
}

// sendDeadlineLocked is how long one node may take. While the client waits, an
// owner gets half the time, so that a fallback can still replace a silent one
// before the answer is due; afterwards it is a matter of bounding the tail. So is
// what this node keeps itself, whenever that is: it is tried when all others have
// failed, which is mostly when the time of the client is over. A peer refuses what
// is past its deadline, so a node that was held up sends nothing old.
func (w *write) sendDeadlineLocked(s quorum.Send) time.Time {
	switch {
	case w.mu.answered, s.Stand.Node == w.self.Node:
		return w.c.tailDeadline(w.began)
	case s.Stand.For == 0:
		return w.start.Add(w.deadline.Sub(w.start) / 2)
	default:
		return w.deadline
	}
}

// tailDeadline is how long a message may take that a request sends now which began
// then and has its answer.
func (c *Coordinator) tailDeadline(began time.Time) time.Time {
	deadline, last := time.Now().Add(c.cfg.HintTimeout), began.Add(c.cfg.MaxAge)
	if deadline.After(last) {
		return last
	}
	return deadline
}

// send delivers the record to one node. Requires: mu is not held.
func (w *write) send(s quorum.Send, slot *mergeSlot, deadline time.Time) {
	peer := w.c.cluster.Peer(s.Stand.Node)
	if peer == nil {
		slot.done(ErrUnreachable)
		return
	}
	peer.Merge(MergeRequest{
		Key: w.key, For: s.Stand.For, Record: w.enc,
		Durable: !w.c.cfg.FsyncOne, Optional: s.Optional, Stamp: w.rings.Stamp, Deadline: deadline,
	}, slot.fn)
}

// countHint counts what became of a hint, if the message to a stand was one.
func (w *write) countHint(s ring.Stand, err error) {
	d := &w.c.count.divergence
	switch {
	case s.For == 0:
	case err != nil:
		d.hintsFailed.Inc()
	case s.Node == w.self.Node && s.For != w.self.For:
		d.hintsKept.Inc()
	default:
		d.hints.Inc()
	}
}

// slotLocked is the callback for one message.
func (w *write) slotLocked(s quorum.Send) *mergeSlot {
	for len(w.slots) <= s.Index {
		slot := &mergeSlot{w: w, index: len(w.slots)}
		slot.fn = slot.done
		w.slots = append(w.slots, slot)
	}
	w.slots[s.Index].stand = s.Stand
	return w.slots[s.Index]
}

// done takes the outcome of one message.
func (s *mergeSlot) done(err error) {
	s.w.countHint(s.stand, err)
	if s.stand.Node != s.w.self.Node {
		s.w.rings.settle(err, s.w.c.cfg.MessageAge)
	}
	s.w.outcome(s.index, err)
}

// localDone takes the outcome of the local commit.
func (w *write) localDone(err error) {
	w.countHint(w.self, err)
	w.outcome(quorum.Local, err)
}

func (w *write) outcome(index int, err error) {
	w.mu.Lock()
	w.mu.refs--
	switch {
	case err == nil:
		w.mu.Ack(index)
	case errors.Is(err, ErrOverloaded), errors.Is(err, ErrStaleEpoch):
		w.mu.Fail(index, quorum.Refused)
	case errors.Is(err, ErrHintBudget):
		w.c.count.hintsShed.Inc()
		w.mu.Fail(index, quorum.OverBudget)
	default:
		w.mu.Fail(index, quorum.Dead)
	}
	w.resume()
}

// fire is the timer: the client's time is over.
func (w *write) fire() {
	w.mu.Lock()
	w.mu.refs--
	w.mu.armed = false
	if !w.mu.answered {
		w.mu.expired = true
	}
	w.resume()
}
