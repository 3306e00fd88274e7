package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/cmd/redynamo/history"
)

// checkCmd judges histories of what clients did and saw.
type checkCmd struct {
	Files    []string `arg:"" help:"Histories, each judged by itself; 'redynamo bench --history' records one." name:"file"`
	MinW     int      `help:"Hold the cluster to acknowledgements of at least so many nodes: 1 more than the disks that were lost." default:"1"`
	DefaultW int      `help:"What W is of writes that do not say it." default:"2"`
	OneClock bool     `help:"The nodes' clocks agree: plain writes of a session are in order also when it moves between nodes."`
	Findings int      `help:"How many findings of a kind to show; all are counted." default:"10"`
}

// errUnreadable says that a history could not be judged.
var errUnreadable = errors.New("not judged")

// bytesPerPass is how much of a history is held in memory at a time: what is known
// of its operations takes about as much as the file. A larger file is read several
// times, each time for a share of its keys.
const bytesPerPass = 256 << 20

// shownBytes is how much of a line is shown.
const shownBytes = 2 << 10

// Run judges all files and fails if any has findings.
func (k *checkCmd) Run(con *console) error {
	var unreadable []error
	findings := 0
	for _, name := range k.Files {
		n, err := k.one(con, name, bytesPerPass)
		if err != nil {
			unreadable = append(unreadable, fmt.Errorf("%s: %w: %w", name, errUnreadable, err))
		}
		findings += n
	}
	if len(unreadable) > 0 {
		return errors.Join(unreadable...)
	}
	if findings > 0 {
		return fmt.Errorf("%d findings", findings)
	}
	return nil
}

// one judges one file and returns the number of its findings.
func (k *checkCmd) one(con *console, name string, perPass int64) (findings int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a file: a history is read more than once")
	}
	opts := history.Options{OneClock: k.OneClock, MaxFindings: k.Findings, Binding: history.Binding{W: k.MinW, Nodes: k.DefaultW}}
	opts.Shards = int(info.Size()/perPass) + 1
	report := history.Report{Counts: map[history.Kind]int{}}
	for ; opts.Shard < opts.Shards; opts.Shard++ {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		part, err := history.Check(f, opts)
		if err != nil {
			return 0, err
		}
		report.Merge(part)
	}
	lines, err := k.excerpts(f, report.Findings)
	if err != nil {
		return 0, err
	}
	printReport(con.out, name, report, lines)
	return report.Total(), nil
}

// excerpts reads the lines that findings name.
func (k *checkCmd) excerpts(f *os.File, findings []history.Finding) (map[int]string, error) {
	lines := map[int]string{}
	last := 0
	for _, finding := range findings {
		for _, l := range finding.Lines {
			lines[l] = ""
			last = max(last, l)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, history.MaxLineBytes)
	for n := 1; n <= last && scanner.Scan(); n++ {
		if _, named := lines[n]; named {
			text := scanner.Text()
			if len(text) > shownBytes {
				text = strings.ToValidUTF8(text[:shownBytes], "") + "..."
			}
			lines[n] = text
		}
	}
	return lines, scanner.Err()
}

func printReport(w io.Writer, name string, r history.Report, lines map[int]string) {
	f := r.Figures
	fmt.Fprintf(w, "%s: %d writes and deletes acknowledged, %d of unknown outcome, %d failed; %d reads, at most %d siblings; %d keys\n",
		name, f.Acked, f.Unknown, f.Failed, f.Reads, f.MostSiblings, f.Keys)
	if f.Unjudged > 0 {
		fmt.Fprintf(w, "  %d keys were not read at the end: nothing of them can be found lost or resurrected\n", f.Unjudged)
	}
	if f.Uninspected > 0 {
		fmt.Fprintf(w, "  %d keys have no inspect line: nothing is told of the convergence of their copies\n", f.Uninspected)
	}
	if f.PlainAcked > 0 {
		fmt.Fprintf(w, "  %d of %d plain SETs were replaced by concurrent ones; that is no promise broken\n", f.PlainReplaced, f.PlainAcked)
	}
	shown := map[history.Kind]int{}
	for _, finding := range r.Findings {
		shown[finding.Kind]++
		fmt.Fprintf(w, "\n%v\n", finding)
		for _, l := range finding.Lines {
			fmt.Fprintf(w, "%9d  %s\n", l, lines[l])
		}
	}
	for _, kind := range history.Kinds {
		if more := r.Counts[kind] - shown[kind]; more > 0 {
			fmt.Fprintf(w, "\nand %d more of kind %s\n", more, kind)
		}
	}
	if r.Total() == 0 {
		fmt.Fprintln(w, "  clean")
		return
	}
	var counts []string
	for _, kind := range slices.DeleteFunc(slices.Clone(history.Kinds), func(kind history.Kind) bool { return r.Counts[kind] == 0 }) {
		counts = append(counts, fmt.Sprintf("%d %s", r.Counts[kind], kind))
	}
	fmt.Fprintf(w, "\n%s: %s\n", name, strings.Join(counts, ", "))
}
