//go:build linux

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRowsAreNumberedOnce(t *testing.T) {
	seen := map[string]bool{}
	letters := map[int]string{} // of the last row with a number
	for _, r := range scenarios() {
		if seen[r.name()] {
			t.Errorf("row %s is there twice", r.name())
		}
		last, again := letters[r.number]
		if again && (last == "" || r.letter != string(last[0]+1)) || !again && r.letter != "" && r.letter != "a" {
			t.Errorf("row %s follows on %q: rows of one number are lettered from a on", r.name(), last)
		}
		seen[r.name()], letters[r.number] = true, r.letter
	}
	for name, lacks := range notYet {
		if !seen[name] || lacks.why == "" || len(lacks.shows) == 0 {
			t.Errorf("notYet names row %s, %+v: there must be a row, a reason and what it shows", name, lacks)
		}
	}
}

func TestRowsAreChosenByNumberAndLetter(t *testing.T) {
	for text, want := range map[string][]string{
		"2, 30": {"2", "30"},
		"29b":   {"29b"},
		"29":    {"29a", "29b", "29c", "29d", "29e"},
	} {
		var got []string
		chosen, err := choose(text)
		for _, r := range chosen {
			got = append(got, r.name())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("-rows %s are %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"1000", "2b", "b", ","} {
		if chosen, err := choose(text); err == nil {
			t.Errorf("-rows %s are %d rows", text, len(chosen))
		}
	}
}

func TestTheEndOfALogIsShortHoweverLongItIs(t *testing.T) {
	text := strings.Repeat("early\n", 100) + strings.Repeat("x", 10*lineBytes) + "\nlast\n"
	got := strings.Split(endOf(text, shownLines), "\n")
	if len(got) != shownLines || got[shownLines-1] != "last" || len(got[shownLines-2]) > lineBytes+10 || got[0] != "early" {
		t.Errorf("%d lines are shown, the last but one of %d bytes, the last is %q", len(got), len(got[len(got)-2]), got[len(got)-1])
	}
	if got := endOf("one", shownLines); got != "one" {
		t.Errorf("of one line %q is shown", got)
	}
}

func TestOnlyWhatIsKnownIsExpected(t *testing.T) {
	known := slices.IndexFunc(scenarios(), func(r scenario) bool { return r.number == 11 })
	for _, c := range []struct {
		what   string
		row    scenario
		lack   *lack
		faults []string
		broken error
		want   bool
	}{
		{"a row that passes", scenarios()[known], nil, nil, nil, true},
		{"a row that fails", scenarios()[known], nil, []string{"7 diverged: k"}, nil, false},
		{"a known failure", scenarios()[known], &lack{shows: []string{unequal}}, []string{"7 diverged: k"}, nil, true},
		{"a known failure and another", scenarios()[known], &lack{shows: []string{unequal}}, []string{"7 diverged: k", "1 lost: k"}, nil, false},
		{"a known failure that is gone", scenarios()[known], &lack{shows: []string{unequal}}, nil, nil, false},
		{"a known failure of chance that is gone", scenarios()[known], &lack{shows: []string{unequal}, sometimes: true}, nil, nil, true},
		{"a harness that broke", scenarios()[known], &lack{shows: []string{unequal}}, nil, os.ErrInvalid, false},
	} {
		r := result{row: c.row, faults: c.faults, broken: c.broken}
		if got := r.expected(c.lack); got != c.want {
			t.Errorf("%s: expected is %v, want %v", c.what, got, c.want)
		}
	}
}

func TestLongestGapCountsTriesThatFail(t *testing.T) {
	zero := time.Now()
	at := func(ms int, ok bool) sample {
		return sample{at: zero.Add(time.Duration(ms) * time.Millisecond), took: 10 * time.Millisecond, ok: ok}
	}
	cl := &client{}
	cl.mu.samples = []sample{at(0, true), at(100, false), at(300, false), at(700, true), at(900, true)}
	l := load{clients: []*client{cl}}
	if got, want := l.longestGap(zero, zero.Add(time.Second)), 610*time.Millisecond; got != want {
		t.Errorf("longest gap %v, want %v: from the first try that failed to the next success", got, want)
	}
	cl.mu.samples = append(cl.mu.samples, at(950, false))
	if got, want := l.longestGap(zero, zero.Add(2*time.Second)), 1050*time.Millisecond; got != want {
		t.Errorf("longest gap %v, want %v: no success came any more", got, want)
	}
}

func TestLeftoversOfRunsThatLiveAreLeft(t *testing.T) {
	mine := runPrefix + strconv.Itoa(os.Getpid())
	for name, want := range map[string]bool{
		mine + "-5-n0":           false,
		runPrefix + "4194305-n0": true, // above the largest process id
		runPrefix + "x-n0":       false,
		"other-4194305":          false,
	} {
		if got := abandoned(name); got != want {
			t.Errorf("abandoned(%q) is %v", name, got)
		}
	}
}
