package integration

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestStockClientsWork runs other people's clients, each in its own language, at both
// doors of one cluster; kills a node under all of them at once; and holds the table in
// README to what each of them did.
func TestStockClientsWork(t *testing.T) {
	clients := stockClients(t)
	c := startProcesses(t, 5)
	const victim = 2
	var mu sync.Mutex // the clients are tried side by side
	trials := map[string]map[string]trial{}
	t.Run("features", func(t *testing.T) {
		for _, s := range clients {
			for _, door := range s.doors {
				for _, protocol := range s.protocols {
					t.Run(s.name+"/"+door+"/resp"+protocol, func(t *testing.T) {
						t.Parallel()
						got := s.try(t, door, protocol, c.addrsFrom(0, door))
						mu.Lock()
						defer mu.Unlock()
						if at := s.name + door; trials[at] == nil {
							trials[at] = map[string]trial{}
						}
						trials[s.name+door][protocol] = got
					})
				}
			}
		}
	})
	t.Run("redis-cli", func(t *testing.T) { redisCLI(t, c) })
	t.Run("carts", func(t *testing.T) { shoppers(t, c) })
	writers := map[string]*stockWriter{}
	t.Run("kill", func(t *testing.T) { killUnderStock(t, c, victim, clients, writers) })

	var rows []stockRow
	missing := false
	for _, s := range clients {
		for _, door := range s.doors {
			at := s.name + door
			if len(trials[at]) != len(s.protocols) || writers[at] == nil {
				missing = true
				continue
			}
			r := merged(s, door, trials[at])
			r.back = fmt.Sprintf("%.1f", writers[at].mu.back.Seconds())
			rows = append(rows, r)
		}
	}
	if !t.Failed() {
		compareStock(t, rows, !missing)
	}
}

// compareStock holds README's table to rows, or writes it anew if all are there.
func compareStock(t *testing.T, rows []stockRow, whole bool) {
	t.Helper()
	var want strings.Builder
	want.WriteString(stockHead)
	for _, r := range rows {
		want.WriteString(r.line())
	}
	got := readmeBlock(t, "clients")
	if *update && whole {
		writeReadmeBlock(t, "clients", want.String())
		return
	}
	held := map[string]bool{}
	for line := range strings.Lines(got) {
		held[judged(line)] = true
	}
	for line := range strings.Lines(want.String()) {
		if !held[judged(line)] {
			t.Errorf("not in README's table; run this test with -update where all clients are installed:\n%s", line)
		}
	}
	if n := strings.Count(want.String(), "\n"); whole && strings.Count(got, "\n") != n {
		t.Errorf("README's table has %d lines, not %d", strings.Count(got, "\n"), n)
	}
}

// judged is a line of the table without what differs between machines: the version
// of the client, and the seconds that it took to come back.
func judged(line string) string {
	cells := strings.Split(line, "|")
	if len(cells) < 5 {
		return line
	}
	cells[1], _, _ = strings.Cut(strings.TrimSpace(cells[1]), " ")
	cells[len(cells)-3] = ""
	return strings.Join(cells, "|")
}

// stockWriter is a client that writes on and on, and what became of each write.
type stockWriter struct {
	name string
	cmd  *exec.Cmd
	mu   struct {
		sync.Mutex
		writes  int       // that succeeded
		last    time.Time // end of the latest of them
		trouble time.Time // end of the latest that failed, or took longer than prompt
		errors  int       // since the kill
		first   string    // error

		killed    time.Time
		recovered bool
		back      time.Duration // from the kill to the last trouble
	}
}

// prompt is how long a write may take and count for a good one.
const prompt = time.Second

// listen reads what the driver prints until its end.
func (w *stockWriter) listen(lines *bufio.Scanner) {
	for lines.Scan() {
		var begin, end int64
		var what string
		if n, _ := fmt.Sscan(lines.Text(), &begin, &end, &what); n != 3 {
			begin, end, what = 0, time.Now().UnixMilli(), "unreadable" // what a client says by itself
		}
		w.mu.Lock()
		if what != "ok" {
			if w.mu.errors++; w.mu.errors == 1 {
				w.mu.first = lines.Text()
			}
		} else {
			w.mu.writes++
			w.mu.last = time.UnixMilli(end)
		}
		if what != "ok" || end-begin > prompt.Milliseconds() {
			w.mu.trouble = time.UnixMilli(end)
		}
		w.mu.Unlock()
	}
}

// wrote is nil if the client has written so often.
func (w *stockWriter) wrote(enough int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.writes < enough {
		return fmt.Errorf("%s wrote %d times; %d errors, first %q", w.name, w.mu.writes, w.mu.errors, w.mu.first)
	}
	return nil
}

// kill notes that a node is killed now: what was wrong before does not count.
func (w *stockWriter) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.errors, w.mu.killed = 0, time.Now()
	w.mu.trouble = w.mu.killed
}

// recovered is nil once the client has written for a while without trouble, and from
// then on: on a busy machine somebody is late all the time.
func (w *stockWriter) recovered(calm time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.mu.recovered && w.mu.last.Sub(w.mu.trouble) >= calm {
		w.mu.recovered, w.mu.back = true, w.mu.trouble.Sub(w.mu.killed)
	}
	if !w.mu.recovered {
		return fmt.Errorf("%s: wrote last %v after the kill, trouble %v after it; %d errors, first %q", w.name,
			w.mu.last.Sub(w.mu.killed), w.mu.trouble.Sub(w.mu.killed), w.mu.errors, w.mu.first)
	}
	return nil
}

// killUnderStock lets every client write, those for one node at the one that is then
// killed, and waits until all of them write again without trouble. How long that took
// is for the table to say; a client that does not come back fails.
func killUnderStock(t *testing.T, c *processes, victim int, clients []stock, writers map[string]*stockWriter) {
	const enough, calm, patience = 30, 5 * time.Second, 60 * time.Second
	for _, s := range clients {
		for _, door := range s.doors {
			s, w := s, &stockWriter{name: s.name + " " + door}
			t.Run(s.name+"/"+door, func(t *testing.T) {
				w.cmd = s.command(t, door, s.protocols[len(s.protocols)-1], c.addrsFrom(victim, door), "write")
				writers[s.name+door] = w
			})
		}
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	for _, w := range writers {
		out, err := w.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // some run tools, which end with them
		if err := w.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			w.listen(bufio.NewScanner(out))
			_ = w.cmd.Wait() // killed processes report that
		})
		defer func() { _ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL) }() // it may have ended
	}
	all := func(cond func(*stockWriter) error) func() error {
		return func() error {
			var errs []error
			for _, w := range writers {
				errs = append(errs, cond(w))
			}
			return errors.Join(errs...)
		}
	}
	await(t, patience, "all clients write", all(func(w *stockWriter) error { return w.wrote(enough) }))
	for _, w := range writers {
		w.kill()
	}
	defer logWriters(t, writers)
	c.kill(c.nodes[victim])
	await(t, patience, "all clients write again", all(func(w *stockWriter) error { return w.recovered(calm) }))
}

func logWriters(t *testing.T, writers map[string]*stockWriter) {
	for _, at := range slices.Sorted(maps.Keys(writers)) {
		w := writers[at]
		w.mu.Lock()
		t.Logf("%-24s back after %5.2f s, %2d errors, first %.150q", w.name, w.mu.back.Seconds(), w.mu.errors, w.mu.first)
		w.mu.Unlock()
	}
}
