package share

// The rule, in slices of time. A slice is SliceMS long.
const (
	SliceMS = 100

	recent = 5   // slices that decide about shrinking: 0.5 s
	window = 100 // slices that decide about growing: 10 s

	// Floor is the least share: with it all work ends, in bounded time.
	Floor = 0.1
	// Most is the largest while there are clients: after each piece of work its kind
	// rests for three times as long. A percentile shows harm only when it is done.
	Most = 0.25

	shrink = 0.75 // by slice
	grow   = 0.01 // by slice in which work ran

	// enough is how many latencies say something about their p99. Fewer in the
	// whole window are no load.
	enough = 50

	settle = 3   // slices after background work that do not count as quiet
	block  = 10  // quiet slices, at least, that are judged together
	sample = 100 // latencies of such a block, at least
	pause  = 10  // slices of a pause in which the baseline is measured anew
	period = 110 // slices of wall time at whose beginning there may be one: 11 s

	// crowd is how many requests under way are more than a node has time for,
	// whatever their latency is so far.
	crowd = 512
)

// Sources is the number of latencies that are watched: those of the requests of
// clients, and of what other nodes ask on behalf of theirs.
const Sources = 2

// Slice is what happened in one slice of time.
type Slice struct {
	Ended    [Sources]Counts // latencies of what ended in it, in whole numbers
	InFlight int             // requests under way at its end
	Stalled  bool            // the disk does not keep up
	Quiet    bool            // no background work ran
	WallMS   int64           // wall time at its end
}

// Verdict is what holds for the next slice.
type Verdict struct {
	Share     float64 // part of its time that each kind of background work may be busy
	Pause     bool    // nothing is to begin, so that the baseline can be measured
	P99US     int64   // of clients' requests, in the last 10 s; 0 if there were too few
	TargetUS  int64   // for it
	Measured  bool    // the target rests on a measured baseline
	Unbridled bool    // there is no load: background work goes at full speed
}

// Control decides on the share. It is made by New.
type Control struct {
	multiple float64
	floorUS  int64

	share   float64
	slices  [window][Sources]Counts // a ring
	at      int
	sources [Sources]source

	sinceQuiet int   // slices since one counted for the baseline
	period     int64 // of wall time, at the last slice
	sinceWork  int   // slices since background work ran
	pausing    int   // slices that are left of a pause
}

// source is what is known of one kind of latency.
type source struct {
	recent, whole Counts   // sums over the ring
	quiet         Counts   // with nothing in the background: this block of slices
	quietSlices   int      // in quiet
	before        [3]int64 // p99 of the blocks before it, the latest first; 0: none
}

// calm takes in a slice without background work. Blocks are forgotten whole: with a
// weight that fades, the operations of a heavy load would outnumber for long those of
// a light one that follows, and be the slowest of a hundred.
func (s *source) calm(ended *Counts) {
	s.quiet.add(ended)
	if s.quietSlices++; s.quietSlices >= block && s.quiet.total() >= sample {
		copy(s.before[1:], s.before[:])
		s.before[0] = s.quiet.p99()
		s.quiet, s.quietSlices = Counts{}, 0
	}
}

// baseline is the p99 without background work, 0 if it is not known. Of some blocks the
// best one counts: what else disturbs one, such as work of other nodes that had begun
// before a pause, only makes it worse, and one latency of a hundred is enough for that.
func (s *source) baseline() (us int64) {
	if s.before[0] == 0 && s.quiet.total() >= enough {
		return s.quiet.p99()
	}
	us = s.before[0]
	for _, p99 := range s.before {
		if p99 > 0 {
			us = min(us, p99)
		}
	}
	return us
}

// New makes a Control: the target is a multiple of the baseline, and not below
// floorUS.
func New(multiple float64, floorUS int64) *Control {
	return &Control{multiple: multiple, floorUS: floorUS, share: 1, sinceWork: window}
}

// Next takes in one slice and says what holds for the next one.
func (c *Control) Next(s *Slice) Verdict {
	c.remember(s)
	v := c.judge(s)
	c.schedule(v, s.WallMS/(period*SliceMS))
	v.Share, v.Pause = c.share, c.pausing > 0
	return v
}

// remember brings the windows and the baselines up to date.
func (c *Control) remember(s *Slice) {
	for i := range c.sources {
		src := &c.sources[i]
		src.whole.swap(&s.Ended[i], &c.slices[c.at][i])
		src.recent.swap(&s.Ended[i], &c.slices[(c.at-recent+window)%window][i])
	}
	c.slices[c.at] = s.Ended
	c.at = (c.at + 1) % window
	if c.sinceWork++; !s.Quiet {
		c.sinceWork = 0
	}
	c.sinceQuiet++
	for i := range c.sources {
		src := &c.sources[i]
		if c.calm() && s.Ended[i].total() > 0 {
			src.calm(&s.Ended[i])
			c.sinceQuiet = 0
		}
	}
}

// calm reports whether the slice shows what clients see without background work. Where
// that comes and goes it does at other nodes too, at other times, and harms clients all
// the same: then only a pause does, in which all nodes rest.
func (c *Control) calm() bool {
	return c.sinceWork > settle && (c.pausing > 0 || c.sinceWork >= window)
}

// judge moves the share.
func (c *Control) judge(s *Slice) Verdict {
	v := Verdict{Unbridled: true}
	above, uneasy := s.Stalled, s.InFlight > crowd
	for i := range c.sources {
		src := &c.sources[i]
		target, measured := c.target(src)
		loaded := src.whole.total() >= enough
		if i == 0 {
			v.TargetUS, v.Measured = target, measured
			if loaded {
				v.P99US = src.whole.p99()
			}
		}
		if !loaded {
			continue
		}
		v.Unbridled = false
		latest := &src.recent
		if latest.total() < enough {
			latest = &src.whole
		}
		above = above || latest.p99() > target
		uneasy = uneasy || src.whole.p99() > target
	}
	v.Unbridled = v.Unbridled && !above && !uneasy
	switch {
	case v.Unbridled:
		c.share = 1
	case c.share == 1 || c.sinceWork >= window: // clients, or work, begin
		c.share = Floor
	case above:
		c.share *= shrink
	case !uneasy && !s.Quiet:
		c.share += grow
	}
	if !v.Unbridled {
		c.share = min(max(c.share, Floor), Most)
	}
	return v
}

// target is what the p99 of a source is to stay below, and whether that was
// measured.
func (c *Control) target(src *source) (us int64, measured bool) {
	base := src.baseline()
	if base == 0 {
		return c.floorUS, false
	}
	return max(int64(c.multiple*float64(base)), c.floorUS), true
}

// schedule begins and ends the pauses in which the baseline is measured. They
// cost a tenth of the time, and only while background work is held back. They begin
// by wall time, on all nodes together, because a change of the ring has all of them
// work: a node that rests alone takes what the others do to its clients for what
// these see at rest, and allows half as much again.
func (c *Control) schedule(v Verdict, now int64) {
	begins := now != c.period
	c.period = now
	switch {
	case v.Unbridled || c.share == 1:
		c.pausing = 0
	case c.pausing > 0:
		c.pausing--
	case c.sinceQuiet > pause && (begins || !v.Measured):
		c.pausing = pause
	}
}
