package resp

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	graphColumns = 80
	graphRows    = 4
	graphSteps   = "_o#" // how much of a row a column fills, from little to all
)

// latencyGraph draws the newest samples of an event.
func latencyGraph(s *session, args [][]byte, w *Reply) {
	events := s.srv.latency.list(eventNames(args[2:])...)
	if len(events) == 0 {
		w.Error("ERR No samples available for event '" + clip(args[2], shownBytes) + "'")
		return
	}
	e := events[0]
	samples := e.samples[max(0, len(e.samples)-graphColumns):]
	low, high := samples[0].ms, samples[0].ms
	for _, x := range samples {
		low, high = min(low, x.ms), max(high, x.ms)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s - high %d ms, low %d ms (all time high %d ms)\n", e.name, high, low, e.most)
	b.WriteString(strings.Repeat("-", graphColumns) + "\n")
	drawBars(&b, samples, low, high)
	drawAges(&b, samples, s.srv.cfg.Now().Unix())
	w.Verbatim("txt", b.String())
}

// drawBars draws a column for each sample, scaled from low to high.
func drawBars(b *strings.Builder, samples []latencySample, low, high int64) {
	most := int64(graphRows * len(graphSteps))
	for row := graphRows - 1; row >= 0; row-- {
		for _, x := range samples {
			height := min((x.ms-low)*most/max(high-low, 1), most-1)
			switch part := int(height) - row*len(graphSteps); {
			case part < 0:
				b.WriteByte(' ')
			case part < len(graphSteps):
				b.WriteByte(graphSteps[part])
			default:
				b.WriteByte('|')
			}
		}
		b.WriteByte('\n')
	}
}

// drawAges writes how long ago each sample was, from top to bottom.
func drawAges(b *strings.Builder, samples []latencySample, now int64) {
	lines := []string{strings.Repeat(" ", len(samples))}
	for line, more := 0, true; more; line++ {
		row := ""
		more = false
		for _, x := range samples {
			if age := ageText(now - x.at); line < len(age) {
				row += age[line : line+1]
				more = true
			} else {
				row += " "
			}
		}
		if more {
			lines = append(lines, row)
		}
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
}

// ageText is a time in its largest whole unit.
func ageText(seconds int64) string {
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}} {
		if seconds >= unit.seconds {
			return strconv.FormatInt(seconds/unit.seconds, 10) + unit.name
		}
	}
	return strconv.FormatInt(max(seconds, 0), 10) + "s"
}
