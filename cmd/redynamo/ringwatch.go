package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

type ringWatchCmd struct {
	ringAddr
	Interval time.Duration `help:"Between two looks." default:"500ms"`
}

// watchPatience bounds what is waited for a member, other than the one asked, to
// say what it has moved.
const watchPatience = 2 * time.Second

// Run follows the change of the ring until it is over: with a bar on a terminal,
// else with a line whenever something is different.
func (c *ringWatchCmd) Run(ctx context.Context, con *console) error {
	show := newWatchShow(con)
	failed := true // the first look must succeed
	for {
		l, err := c.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && failed:
			return err
		case err != nil:
			show.line(fmt.Sprintf("no answer (%v), trying again", err), "")
			failed = true
		default:
			failed = false
			show.show(l)
			if l.state == "stable" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Interval):
		}
	}
}

// look is how far a change is at one moment.
type look struct {
	state, change      string
	partitions, done   int64 // of all members that answered
	bytes, bytesTotal  int64 // of those: what has moved, and with about what is left to
	nodes, nodesSynced int64
}

// share is how much of what is to move has moved, from 0 to 1; of partitions, if nobody
// knows how large they are.
func (l look) share() float64 {
	switch {
	case l.bytesTotal > 0:
		return float64(l.bytes) / float64(l.bytesTotal)
	case l.partitions > 0:
		return float64(l.done) / float64(l.partitions)
	}
	return 0
}

// look asks the node for the phase, and every member for what it moves.
func (c *ringWatchCmd) look(ctx context.Context) (l look, err error) {
	st, err := c.askMap(ctx, "STATUS")
	if err != nil {
		return l, err
	}
	l = look{state: st.text("state"), change: st.text("change"), nodes: st.number("nodes"), nodesSynced: st.number("nodes-synced")}
	if l.state == "stable" {
		return l, nil
	}
	members := st.rows("members")
	answers := make([]reply, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		if m.text("state") == "down" || m.text("address") == "" {
			continue
		}
		wg.Go(func() {
			at := c.ringAddr
			at.Addr, at.Timeout = m.text("address"), min(c.Timeout, watchPatience)
			answers[i], _ = at.askMap(ctx, "TRANSFERS") // one that cannot be reached from here is left out
		})
	}
	wg.Wait()
	for _, a := range answers {
		l.partitions += a.number("partitions")
		l.done += a.number("partitions-done")
		l.bytes += a.number("bytes")
		l.bytesTotal += a.number("bytes-total")
	}
	return l, nil
}

// pace tells how long something has yet to go, from how far it was when it was first
// looked at.
type pace struct {
	began       time.Time // zero: not yet
	first, last float64
}

// left is how long it takes until all is done; false while nothing has moved. What falls
// back to less has begun anew.
func (p *pace) left(now time.Time, share float64) (time.Duration, bool) {
	if p.began.IsZero() || share < p.last {
		p.began, p.first = now, share
	}
	if p.last = share; share == p.first {
		return 0, false
	}
	took := now.Sub(p.began)
	return time.Duration(float64(took) * (1 - share) / (share - p.first)), true
}

// watchShow is where looks are shown.
type watchShow struct {
	con  *console
	bar  *progressbar.ProgressBar // nil: no terminal
	last string
	pace pace
	now  func() time.Time
}

// barSteps is the length of the bar.
const barSteps = 1000

func newWatchShow(con *console) *watchShow {
	s := &watchShow{con: con, now: time.Now}
	if f := terminal(con.err); f != nil {
		s.bar = newWatchBar(f)
	}
	return s
}

func newWatchBar(w io.Writer, more ...progressbar.Option) *progressbar.ProgressBar {
	// The bar's own guess of the time begins with the bar, and that is before anything moves.
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(),
	}
	return progressbar.NewOptions64(barSteps, append(options, more...)...)
}

// line prints what is not the same as before. What is added to it is not looked at.
func (s *watchShow) line(text, added string) {
	if text != s.last {
		fmt.Fprintln(s.con.out, text+added)
		s.last = text
	}
}

func (s *watchShow) show(l look) {
	moves := l.state == "moving" && l.partitions > 0
	size, left := "", ""
	if moves {
		if l.bytesTotal > 0 {
			size = fmt.Sprintf(", %s of %s", inBytes(l.bytes), inBytes(l.bytesTotal))
		}
		if d, known := s.pace.left(s.now(), l.share()); known {
			left = fmt.Sprintf(", about %v left", max(d.Round(time.Second), time.Second))
		}
	}
	switch {
	case l.state == "stable":
		if s.bar != nil {
			_ = s.bar.Finish() // only a picture
		}
		s.line("stable", "")
	case s.bar != nil && moves:
		s.draw(fmt.Sprintf("moving, %d of %d partitions%s%s", l.done, l.partitions, size, left), l.share())
	case s.bar != nil: // nodes are what there is to count
		s.draw(fmt.Sprintf("%s, %d of %d nodes", l.state, l.nodesSynced, l.nodes), float64(l.nodesSynced)/float64(max(l.nodes, 1)))
	case moves:
		s.line(fmt.Sprintf("%s; %d of %d partitions moved%s, %.0f%%", l.change, l.done, l.partitions, size, 100*l.share()), left)
	default:
		s.line(l.change, "")
	}
}

// draw shows a share on the bar.
func (s *watchShow) draw(text string, share float64) {
	s.bar.Describe(text)
	_ = s.bar.Set64(min(int64(share*barSteps), barSteps-1)) // at its maximum a bar is finished, and would not come back
}
