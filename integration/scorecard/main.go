//go:build linux

// Command scorecard runs clusters of the real program under real faults, with
// clients that keep a history, and prints for each fault what it cost: writes
// lost, deletes undone, time without service, latency, and how long the
// replicas took to become equal again.
//
//	go run ./integration/scorecard [-short] [-rows 2,3,29,29b] [-list]
//
// Processes are killed, stopped and started on other disks; nodes have network
// namespaces of their own whose links are cut; disks fill up, freeze, lose
// power and rot. It needs Linux, root, ip and iptables; rows that need more say
// so. Everything it makes carries the prefix of the run and is removed at its
// end, or by the next run.
//
// Rows have the verdict PASS or FAIL. Those that the product is known to fail
// are listed in notYet with the reason; the exit status is 0 if exactly these
// fail. ERROR means that the harness could not do its work.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// shownLines is how much of each log is shown when a row fails; -keep keeps all.
const shownLines = 15

// runPrefix begins the name of whatever a run makes; the process id follows.
const runPrefix = "rdsc-"

func main() {
	s := &scorecard{}
	rows := flag.String("rows", "", "numbers of the rows to run, with commas; all if empty. 29 is 29a and all others of that number")
	list := flag.Bool("list", false, "only list the rows")
	flag.BoolVar(&s.short, "short", false, "seconds instead of minutes")
	flag.IntVar(&s.parallel, "parallel", 3, "rows at the same time, but for those that judge times")
	flag.StringVar(&s.binary, "binary", "", "the redynamo to run; built if empty")
	flag.StringVar(&s.previous, "previous", "", "the release that row 31 upgrades from; built with -tags previous if empty")
	more := flag.String("more", "", "flags that every server is given as well, with spaces, such as '--background-target 0' to see what it is worth")
	flag.BoolVar(&s.keep, "keep", false, "keep data directories and logs until the next run")
	flag.Parse()
	if *list {
		for _, r := range scenarios() {
			fmt.Printf("%4s  %-3s  %s\n", r.name(), r.workload, r.fault)
		}
		return
	}
	s.more = strings.Fields(*more)
	redis.SetLogger(silence{}) // clients judge for themselves what went wrong
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := s.run(ctx, *rows)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scorecard:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// silence is a logger that says nothing.
type silence struct{}

// Printf drops the line.
func (silence) Printf(context.Context, string, ...any) {}

// scorecard is one run.
type scorecard struct {
	short, keep bool
	parallel    int
	binary      string
	previous    string
	more        []string
	help        string
	dir         string
	prefix      string
	skewed      skewed
}

// run runs the chosen rows, prints the table and reports whether every verdict
// is the expected one.
func (s *scorecard) run(ctx context.Context, rows string) (ok bool, err error) {
	chosen, err := choose(rows)
	if err != nil {
		return false, err
	}
	if err := able(chosen); err != nil {
		return false, err
	}
	removeLeftovers()
	s.prefix = runPrefix + strconv.Itoa(os.Getpid())
	if s.dir, err = os.MkdirTemp("", s.prefix+"-"); err != nil {
		return false, err
	}
	defer s.removeDir()
	if s.binary == "" {
		s.binary = filepath.Join(s.dir, "redynamo")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "github.com/redynamo/redynamo/cmd/redynamo")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	help, err := exec.CommandContext(ctx, s.binary, "server", "--help").Output()
	if err != nil {
		return false, fmt.Errorf("ask %s for its flags: %w", s.binary, err)
	}
	s.help = string(help)
	results := s.runRows(ctx, chosen)
	slices.SortFunc(results, func(a, b *result) int { return a.row.compare(b.row) })
	printTable(os.Stdout, results)
	return !slices.ContainsFunc(results, func(r *result) bool { return !r.expected(lacking(r.row.name())) }), ctx.Err()
}

func (s *scorecard) removeDir() {
	if s.keep {
		fmt.Fprintln(os.Stderr, "kept:", s.dir)
		return
	}
	unmountBelow(s.dir)
	_ = os.RemoveAll(s.dir) // the next run tries again
}

// choose returns the rows with the given numbers; one without a letter stands for all
// that have it.
func choose(rows string) (chosen []scenario, err error) {
	all := scenarios()
	if rows == "" {
		return all, nil
	}
	for text := range strings.SplitSeq(rows, ",") {
		text = strings.TrimSpace(text)
		before := len(chosen)
		for _, r := range all {
			if text == r.name() || text == strconv.Itoa(r.number) {
				chosen = append(chosen, r)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("there is no row %q; -list shows them", text)
		}
	}
	return chosen, nil
}

// able reports what is missing for the chosen rows.
func able(chosen []scenario) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("namespaces, mounts and signals to other users' processes need root")
	}
	need := []string{"ip", "iptables"}
	for _, r := range chosen {
		need = append(need, r.needs...)
	}
	for _, p := range need {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed", p)
		}
	}
	return nil
}

// runRows runs rows beside each other, and then one by one those that judge
// times.
func (s *scorecard) runRows(ctx context.Context, rows []scenario) (results []*result) {
	var mu sync.Mutex
	queue := make(chan scenario)
	var wg sync.WaitGroup
	worker := func(slot int) {
		for r := range queue {
			res := s.runRow(ctx, r, slot)
			mu.Lock()
			results = append(results, res)
			mu.Unlock()
		}
	}
	for slot := range max(1, s.parallel) {
		wg.Go(func() { worker(slot) })
	}
	for _, waiting := range []bool{true, false} {
		for _, r := range rows {
			if r.waits == waiting && !r.alone && ctx.Err() == nil {
				queue <- r
			}
		}
	}
	close(queue)
	wg.Wait()
	for _, r := range rows {
		if r.alone && ctx.Err() == nil {
			results = append(results, s.runRow(ctx, r, 0))
		}
	}
	return results
}

func (s *scorecard) runRow(ctx context.Context, r scenario, slot int) *result {
	b := &bed{ctx: ctx, short: s.short, binary: s.binary, previous: s.previous, more: s.more, help: s.help,
		dir: filepath.Join(s.dir, "row"+r.name()), prefix: s.prefix + "-" + r.name(), slot: slot,
		home: s.dir, skewed: &s.skewed}
	begin := time.Now()
	res := &result{row: r}
	if res.broken = os.Mkdir(b.dir, 0o700); res.broken == nil {
		res = r.runOn(b)
	}
	fmt.Fprintf(os.Stderr, "row %s, %s: %s after %.1f s\n", r.name(), r.fault, res.verdict(), time.Since(begin).Seconds())
	if !res.expected(lacking(r.name())) && b.c != nil {
		for _, p := range b.c.nodes {
			fmt.Fprintf(os.Stderr, "row %s, node %d logged at last:\n%s\n", r.name(), p.index, p.lastLog(shownLines))
		}
	}
	if !s.keep {
		unmountBelow(b.dir)
		_ = os.RemoveAll(b.dir) // the end of the run tries again
	}
	return res
}
