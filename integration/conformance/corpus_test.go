package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A scenario is one block of a corpus file: steps on fresh connections to an
// empty store.
type scenario struct {
	name  string
	door  string // "plain" or "cluster"
	steps []step
}

// kind says what a step does.
type kind uint8

const (
	request kind = iota // words as an array of bulk strings, and its one reply
	queued              // the same, sent and answered together with the request after it
	mute                // the same, sent without waiting for a reply
	raw                 // bytes as they are, and all that is answered
	part                // bytes as they are, not yet a whole request
	walk                // SCAN to the end of the walk: the keys met
	next                // one reply more: a message, or another answer to the last request
	closed              // whether the connection is closed
	wait                // time passes
	resp3               // the connection speaks RESP3 from here on
	renew               // the connection is replaced by a new one
)

// A step is one line of a scenario, with the allowances made for its reply.
type step struct {
	kind   kind
	conn   int // 0 or 1
	words  []string
	bytes  string
	pause  time.Duration
	loose  bool             // the order of elements does not count
	near   int64            // integers may differ by so much
	blanks []*regexp.Regexp // what differs between any two servers is blanked
	key    string           // scenario and line, numbered when the scenario has it twice
}

// repeated is (N*X) in a word, many the same with X quoted; mark is what begins a
// request.
var (
	many     = regexp.MustCompile(`^\((\d+)\*"`)
	repeated = regexp.MustCompile(`\((\d+)\*([^)]+)\)`)
	mark     = regexp.MustCompile(`^(2?)(%?)(?:~(\d+))?(>>?)$`)
)

// words splits a line into words: bare ones, in which (N*X) stands for N times
// X, and double-quoted ones with the escapes of Go, which (N*"X") repeats.
func words(line string) (list []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		times, end := 1, ""
		if m := many.FindStringSubmatch(line); m != nil {
			times, _ = strconv.Atoi(m[1]) // digits, by the pattern
			end, line = ")", line[len(m[0])-1:]
		}
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			list, line = append(list, expand(word)), rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, err
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		rest, ended := strings.CutPrefix(line[len(quoted):], end)
		if !ended {
			return nil, fmt.Errorf("no %q behind %s", end, quoted)
		}
		list, line = append(list, strings.Repeat(word, times)), rest
	}
	return list, nil
}

func expand(word string) string {
	return repeated.ReplaceAllStringFunc(word, func(m string) string {
		p := repeated.FindStringSubmatch(m)
		n, _ := strconv.Atoi(p[1]) // digits, by the pattern
		return strings.Repeat(p[2], n)
	})
}

// readCorpus reads testdata/<door>/*.txt.
func readCorpus(t *testing.T, door string) (all []scenario) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", door, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus for the %s door: %v", door, err)
	}
	met := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list, err := parseCorpus(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, sc := range list {
			if sc.name = door + " " + sc.name; met[sc.name] {
				t.Fatalf("%s: %q is there twice", file, sc.name)
			}
			met[sc.name], sc.door = true, door
			all = append(all, sc.keyed())
		}
	}
	return all
}

// keyed gives every step the name by which the table of differences knows it.
func (sc scenario) keyed() scenario {
	times := map[string]int{}
	for i := range sc.steps {
		s := &sc.steps[i]
		times[s.key]++
		if n := times[s.key]; n > 1 {
			s.key += fmt.Sprintf(" #%d", n)
		}
		s.key = sc.name + ": " + s.key
	}
	return sc
}

func parseCorpus(text string) (all []scenario, err error) {
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		first, rest, _ := strings.Cut(line, " ")
		if first == "==" {
			all = append(all, scenario{name: rest})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("line %d: before the first scenario", i+1)
		}
		sc := &all[len(all)-1]
		if first == "~" {
			err = sc.blank(rest)
		} else {
			err = sc.add(line, first, rest)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return all, nil
}

// blank blanks what matches in the reply of the step before.
func (sc *scenario) blank(pattern string) error {
	if len(sc.steps) == 0 {
		return fmt.Errorf("nothing to blank")
	}
	re, err := regexp.Compile("(?s)" + pattern)
	s := &sc.steps[len(sc.steps)-1]
	s.blanks = append(s.blanks, re)
	return err
}

func (sc *scenario) add(line, first, rest string) (err error) {
	s := step{key: line}
	if m := mark.FindStringSubmatch(first); m != nil {
		s.conn, s.loose = len(m[1]), m[2] != ""
		s.near, _ = strconv.ParseInt("0"+m[3], 10, 64) // digits, by the pattern
		if m[4] == ">>" {
			s.kind = queued
		}
		s.words, err = words(rest)
		sc.steps = append(sc.steps, s)
		return err
	}
	if name, second := strings.CutPrefix(first, "2"); second {
		s.conn, first = 1, name
	}
	switch first {
	case "mute", "walk":
		s.kind = map[string]kind{"mute": mute, "walk": walk}[first]
		s.words, err = words(rest)
	case "raw", "part":
		s.kind = map[string]kind{"raw": raw, "part": part}[first]
		var list []string
		list, err = words(rest)
		s.bytes = strings.Join(list, "")
	case "inline":
		s.kind, s.bytes = raw, expand(rest)+"\r\n"
	case "next":
		s.kind = next
	case "closed":
		s.kind = closed
	case "resp3":
		s.kind = resp3
	case "new":
		s.kind = renew
	case "wait":
		s.kind = wait
		s.pause, err = time.ParseDuration(rest + "ms")
	default:
		err = fmt.Errorf("unknown step %q", first)
	}
	sc.steps = append(sc.steps, s)
	return err
}
