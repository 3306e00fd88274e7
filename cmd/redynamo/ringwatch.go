package main

import (
	"context"
	"fmt"
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
			show.line(fmt.Sprintf("no answer (%v), trying again", err))
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
	nodes, nodesSynced int64
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
			at := ringAddr{Addr: m.text("address"), AuthPass: c.AuthPass, Timeout: min(c.Timeout, watchPatience)}
			answers[i], _ = at.askMap(ctx, "TRANSFERS") // one that cannot be reached from here is left out
		})
	}
	wg.Wait()
	for _, a := range answers {
		l.partitions += a.number("partitions")
		l.done += a.number("partitions-done")
	}
	return l, nil
}

// watchShow is where looks are shown.
type watchShow struct {
	con  *console
	bar  *progressbar.ProgressBar // nil: no terminal
	last string
}

func newWatchShow(con *console) *watchShow {
	s := &watchShow{con: con}
	if f := terminal(con.err); f != nil {
		s.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(f), progressbar.OptionSetDescription("partitions"),
			progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
	}
	return s
}

// line prints what is not the same as before.
func (s *watchShow) line(text string) {
	if text != s.last {
		fmt.Fprintln(s.con.out, text)
		s.last = text
	}
}

func (s *watchShow) show(l look) {
	switch {
	case l.state == "stable":
		if s.bar != nil {
			_ = s.bar.Finish() // only a picture
		}
		s.line("stable")
	case s.bar != nil:
		done, of, what := l.done, l.partitions, "partitions"
		if of == 0 || l.state != "moving" { // nodes are then what there is to count
			done, of, what = l.nodesSynced, l.nodes, "nodes"
		}
		s.bar.Describe(l.state + ", " + what)
		s.bar.ChangeMax64(max(of, 1))
		_ = s.bar.Set64(min(done, max(of, 1)-1)) // at its maximum a bar is finished, and would not come back
	case l.state == "moving" && l.partitions > 0:
		s.line(fmt.Sprintf("%s; %d of %d partitions moved", l.change, l.done, l.partitions))
	default:
		s.line(l.change)
	}
}
