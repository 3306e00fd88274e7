package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/schollz/progressbar/v3"
)

// ringServer speaks enough RESP3 for the ring commands: it answers each RING
// command with the next of what was prepared for its first word, the last one for
// ever.
type ringServer struct {
	addr    string
	answers map[string][]string
	mu      struct {
		sync.Mutex
		asked []string
	}
}

func newRingServer(t *testing.T, answers map[string][]string) *ringServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	s := &ringServer{addr: l.Addr().String(), answers: answers}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *ringServer) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		words, err := readCommand(br)
		if err != nil {
			return
		}
		answer := "+OK\r\n"
		switch strings.ToLower(words[0]) {
		case "hello":
			answer = respMap("proto", ":3\r\n")
		case "ring":
			answer = s.next(words[1:])
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (s *ringServer) next(words []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.asked = append(s.mu.asked, strings.Join(words, " "))
	left := s.answers[words[0]]
	if len(left) == 0 {
		return "-ERR nothing is prepared for " + words[0] + "\r\n"
	}
	if len(left) > 1 {
		s.answers[words[0]] = left[1:]
	}
	return strings.ReplaceAll(left[0], "ADDR", s.addr)
}

func readCommand(br *bufio.Reader) (words []string, err error) {
	number := func() (int, error) {
		line, err := br.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number()
	for range n {
		size, err := number()
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(br, b); err != nil {
			return nil, err
		}
		words = append(words, string(b[:size]))
	}
	return words, err
}

// respMap is a map of names and values; a value that ends in a new line is
// encoded already.
func respMap(pairs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%%%d\r\n", len(pairs)/2)
	for i, p := range pairs {
		if i%2 == 1 && strings.HasSuffix(p, "\n") {
			b.WriteString(p)
			continue
		}
		fmt.Fprintf(&b, "+%s\r\n", p)
	}
	return b.String()
}

func respList(items ...string) string {
	return fmt.Sprintf("*%d\r\n%s", len(items), strings.Join(items, ""))
}

// ring runs a ring command against s and returns what it prints.
func (s *ringServer) ring(t *testing.T, line string) (string, error) {
	var out, errs bytes.Buffer
	words := strings.Fields(line)
	args := append([]string{"ring", words[0], "--addr", s.addr}, words[1:]...)
	err := run(t.Context(), args, &out, &errs)
	if errs.Len() > 0 {
		t.Errorf("%s prints as an error %q", line, errs.String())
	}
	return out.String(), err
}

func (s *ringServer) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.mu.asked, "; ")
}

func aMember(state, step string) string {
	return respMap("node", "00000000000000a1", "address", "ADDR", "zone", "z1", "weight", "100", "state", state, "step", step, "max-level", "2", "partitions", "614", "first", "205")
}

func aPlan(warnings ...string) string {
	var list []string
	for _, w := range warnings {
		list = append(list, "+"+w+"\r\n")
	}
	return respMap("plan", "p7", "from-epoch", "aa", "to-epoch", "bb", "partitions", "410", "copies", "512", "copies-least", "512", "bytes", "52428800", "seconds", "90",
		"balance-before", "0.970", "balance-after", "0.980", "zone-failures-survived-before", "1", "zone-failures-survived-after", "2",
		"warnings", respList(list...),
		"nodes", respList(respMap("node", "00000000000000a1", "zone", "z1", "before", "614", "after", "512", "gains", "0", "loses", "102", "bytes-in", "0")))
}

func TestRingStatusShowsMembersStagedNodesAndChange(t *testing.T) {
	status := func(more ...string) string {
		return respMap(append([]string{"epoch", "aa", "units", "1024", "n", "3", "r", "2", "w", "2", "level", "1", "max-level", "2"}, more...)...)
	}
	s := newRingServer(t, map[string][]string{"STATUS": {
		status("state", "stable", "members", respList(aMember("up", "")), "staged", respList()),
		status("state", "moving", "change", "moving, waits for 1 of 4 nodes", "members", respList(aMember("joining", "acked")),
			"staged", respList(respMap("node", "00000000000000b2", "address", "h:2", "zone", "z2"))),
	}})
	got, err := s.ring(t, "status")
	want := "epoch aa, 1024 partitions, N=3 R=2 W=2, level 1 (this node serves up to 2)\n" +
		"node              address          zone  weight  state  partitions  first  max-level\n" +
		"00000000000000a1  " + s.addr + "  z1    100     up     614         205    2\n"
	if squeeze(got) != squeeze(want) || err != nil {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
	got, err = s.ring(t, "status")
	for _, want := range []string{"change: moving, waits for 1 of 4 nodes\n", "first max-level step\n", "joining 614 205 2 acked\n", "no members yet (redynamo ring add, ring replace):\nnode address zone\n00000000000000b2 h:2 z2\n"} {
		if !strings.Contains(squeeze(got), want) || err != nil {
			t.Errorf("%v, %q, want %q in it", err, got, want)
		}
	}
}

func TestRingFinaliseSaysWhatCameOfIt(t *testing.T) {
	s := newRingServer(t, map[string][]string{"FINALISE": {"+OK\r\n", "+OK it is so already\r\n", "-MIXED node a serves up to 1\r\n"}})
	for _, want := range []string{"the level of the cluster is raised: no older release", "it is so already"} {
		if got, err := s.ring(t, "finalise"); err != nil || !strings.Contains(got, want) {
			t.Errorf("%v, %q, want %q in it", err, got, want)
		}
	}
	if _, err := s.ring(t, "finalise"); err == nil || !strings.Contains(err.Error(), "MIXED node a") {
		t.Errorf("%v", err)
	}
}

// squeeze makes runs of spaces one: columns are as wide as what is in them.
func squeeze(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

func TestRingPlanPrintsWhatWouldMoveAndHowToApplyIt(t *testing.T) {
	s := newRingServer(t, map[string][]string{"PLAN": {aPlan("mind the gap")}})
	got, err := s.ring(t, "plan ADD h:1 REMOVE h:2 FORCE")
	want := `plan p7: ring aa -> bb
 410 partitions change owners; 512 copies move (at least 512), about 50 MiB
 it takes about 1m30s at the present pace
 balance 0.970 -> 0.980; whole zones that may fail without losing a key: 1 -> 2
 WARNING: mind the gap

node zone before after gains loses bytes-in
00000000000000a1 z1 614 512 0 102 0

To carry it out: redynamo ring apply --addr ` + s.addr + " p7\n"
	if squeeze(got) != want || err != nil {
		t.Errorf("%v\n%s\nwant\n%s", err, squeeze(got), want)
	}
	if s.asked() != "PLAN ADD h:1 REMOVE h:2 FORCE" {
		t.Error(s.asked())
	}
}

func TestRingChangesAskFirst(t *testing.T) {
	for line, want := range map[string]string{
		"add h:1 h:2 --weight 50":  "PLAN ADD h:1 h:2 WEIGHT h:1 50 WEIGHT h:2 50",
		"add h:1 --weight 0":       "PLAN ADD h:1 WEIGHT h:1 0",
		"add h:1 h:2":              "PLAN ADD h:1 h:2",
		"remove h:1 --force":       "PLAN REMOVE h:1 FORCE",
		"replace h:1 h:2":          "PLAN REPLACE h:1 h:2",
		"remove h:1 h:2":           "PLAN REMOVE h:1 h:2",
		"replace h:1 h:2 --force ": "PLAN REPLACE h:1 h:2 FORCE",
	} {
		s := newRingServer(t, map[string][]string{"PLAN": {aPlan()}, "APPLY": {"+OK\r\n", "+OK it is so already\r\n"}})
		if _, err := s.ring(t, line); !errors.Is(err, errDeclined) || s.asked() != want { // nobody is there to say yes
			t.Errorf("%s: %v, asked %q, want %q", line, err, s.asked(), want)
		}
		got, err := s.ring(t, line+" --yes")
		if err != nil || !strings.Contains(got, "applied; follow it with: redynamo ring watch --addr "+s.addr) || s.asked() != want+"; "+want+"; APPLY p7" {
			t.Errorf("%s: %v, %q, asked %q", line, err, got, s.asked())
		}
		if got, err := s.ring(t, "apply p7"); err != nil || got != "nothing was to be done: it is so already\n" {
			t.Errorf("applied again: %v, %q", err, got)
		}
	}
}

func TestRingForgetAsksFirstAndPassesRefusalsOn(t *testing.T) {
	s := newRingServer(t, map[string][]string{"FORGET": {"-UNSAFE node a answers; FORCE overrules\r\n", "+OK\r\n"}})
	if got, err := s.ring(t, "forget h:1"); !errors.Is(err, errDeclined) || !strings.Contains(got, "only it holds is given up") || s.asked() != "" {
		t.Errorf("%v, %q, asked %q", err, got, s.asked())
	}
	if _, err := s.ring(t, "forget h:1 -y"); err == nil || !strings.Contains(err.Error(), "UNSAFE node a answers; FORCE overrules") {
		t.Errorf("refused: %v", err)
	}
	if got, err := s.ring(t, "forget h:1 -y --force"); err != nil || !strings.Contains(got, "applied; follow it") || s.asked() != "FORGET h:1; FORGET h:1 FORCE" {
		t.Errorf("%v, %q, asked %q", err, got, s.asked())
	}
}

func TestRingWatchPrintsWhatChangesUntilItIsOver(t *testing.T) {
	status := func(state, change string) string {
		return respMap("state", state, "change", change, "nodes", "4", "nodes-synced", "1", "members",
			respList(aMember("up", "acked"), respMap("node", "b", "address", "127.0.0.1:1", "state", "down"), respMap("node", "c", "address", "", "state", "up")))
	}
	moved := func(done string) string { return respMap("partitions", "30", "partitions-done", done) }
	s := newRingServer(t, map[string][]string{
		"STATUS": {status("announcing", "announcing, waits for 1 of 4 nodes"), status("moving", "moving, waits for 3 of 4 nodes"), status("moving", "moving, waits for 3 of 4 nodes"),
			status("moving", "moving, waits for 3 of 4 nodes"), "-LOADING\r\n", status("switching", "switching, waits for 4 of 4 nodes"), status("stable", "")},
		"TRANSFERS": {moved("0"), moved("10"), moved("10"), moved("20")},
	})
	got, err := s.ring(t, "watch --interval 1ms")
	want := `announcing, waits for 1 of 4 nodes
moving, waits for 3 of 4 nodes; 10 of 30 partitions moved, 33%
moving, waits for 3 of 4 nodes; 20 of 30 partitions moved, 67%, about 1s left
no answer (LOADING), trying again
switching, waits for 4 of 4 nodes
stable
`
	if err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	s = newRingServer(t, nil)
	if _, err := s.ring(t, "watch"); err == nil || !strings.Contains(err.Error(), "nothing is prepared") {
		t.Errorf("a first look that fails: %v", err)
	}
}

func TestRingWatchTellsHowMuchHasMovedAndHowLongTheRestTakes(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	s := &watchShow{con: &console{out: &out, err: io.Discard}, now: func() time.Time { return now }}
	at := func(second int, l look) {
		now = time.Unix(1000+int64(second), 0)
		l.state, l.change, l.partitions = "moving", "moving", 30
		s.show(l)
	}
	at(0, look{bytesTotal: 40 << 20})
	at(50, look{bytesTotal: 40 << 20}) // the same as before
	at(60, look{done: 1, bytes: 20 << 20, bytesTotal: 80 << 20})
	at(61, look{done: 1, bytes: 20 << 20, bytesTotal: 80 << 20}) // the same, but for the time
	at(120, look{done: 20, bytes: 60 << 20, bytesTotal: 80 << 20})
	at(130, look{done: 30, bytes: 70 << 20, bytesTotal: 70 << 20})
	at(140, look{done: 2, bytes: 10 << 20, bytesTotal: 100 << 20}) // another ring came between
	at(150, look{done: 5, bytes: 55 << 20, bytesTotal: 100 << 20})
	want := `moving; 0 of 30 partitions moved, 0 B of 40 MiB, 0%
moving; 1 of 30 partitions moved, 20 MiB of 80 MiB, 25%, about 3m0s left
moving; 20 of 30 partitions moved, 60 MiB of 80 MiB, 75%, about 40s left
moving; 30 of 30 partitions moved, 70 MiB of 70 MiB, 100%, about 1s left
moving; 2 of 30 partitions moved, 10 MiB of 100 MiB, 10%
moving; 5 of 30 partitions moved, 55 MiB of 100 MiB, 55%, about 10s left
`
	if out.String() != want {
		t.Errorf("\n%s\nwant\n%s", out.String(), want)
	}
}

func TestRingWatchDrawsABarOnATerminal(t *testing.T) {
	var out, drawn bytes.Buffer
	now := time.Unix(1000, 0)
	s := &watchShow{
		con: &console{out: &out, err: io.Discard}, now: func() time.Time { now = now.Add(10 * time.Second); return now },
		bar: newWatchBar(&drawn, progressbar.OptionThrottle(0)),
	}
	s.show(look{state: "announcing", nodes: 4})
	s.show(look{state: "moving", nodes: 4, partitions: 30})
	s.show(look{state: "moving", nodes: 4, partitions: 30, done: 12})
	s.show(look{state: "moving", nodes: 4, partitions: 30, done: 30, bytes: 30 << 20, bytesTotal: 40 << 20})
	s.show(look{state: "moving", nodes: 4, partitions: 30, done: 30, bytes: 40 << 20, bytesTotal: 40 << 20})
	s.show(look{state: "switching", nodes: 4, nodesSynced: 4})
	s.show(look{state: "stable"})
	for _, want := range []string{
		"announcing, 0 of 4 nodes", "moving, 12 of 30 partitions, about 15s left", " 40% ",
		"moving, 30 of 30 partitions, 30 MiB of 40 MiB, about 7s left", " 75% ", " 99% ", "switching, 4 of 4 nodes",
	} {
		if !strings.Contains(drawn.String(), want) {
			t.Errorf("%q is not drawn in %q", want, drawn.String())
		}
	}
	if out.String() != "stable\n" {
		t.Errorf("prints %q beside the bar", out.String())
	}
	f, err := os.Open(os.DevNull) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if terminal(io.Discard) != nil || terminal(f) == nil {
		t.Error("a terminal is not told from a buffer")
	}
}

func TestRingHelpNamesEveryCommand(t *testing.T) {
	var out, errs bytes.Buffer
	if err := run(t.Context(), []string{"ring", "--help"}, &out, &errs); err != nil || errs.Len() > 0 {
		t.Fatalf("%v, %q", err, errs.String())
	}
	for _, word := range []string{"status", "plan", "apply", "add", "remove", "replace", "forget", "watch"} {
		if !strings.Contains(out.String(), word) {
			t.Errorf("%q is not in the help:\n%s", word, out.String())
		}
	}
	for _, args := range []string{"ring plan", "ring add", "ring replace h:1", "ring forget", "ring apply", "ring nosuch"} {
		if err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v, want a word about usage", args, err)
		}
	}
}
