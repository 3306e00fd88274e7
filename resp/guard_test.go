package resp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// pieces is a connection on which the client's bytes arrive in given pieces.
type pieces struct {
	net.Conn
	data []byte
	cut  func(left int) int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), max(1, p.cut(len(p.data))))])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

func allAtOnce(left int) int { return left }
func oneByOne(int) int       { return 1 }

func newTestGuard(data []byte, cut func(int) int, change ...func(*Limits)) *guard {
	limits := Limits{}
	for _, f := range change {
		f(&limits)
	}
	limits = limits.withDefaults()
	return &guard{
		conn: &pieces{data: data, cut: cut}, limits: &limits, trust: true,
		query: &budget{limit: limits.MaxQuery}, stop: new(atomic.Bool), since: time.Now(),
	}
}

// guarded reads all commands through guard and redcon, and the error at the end.
func guarded(g *guard) (all [][][]byte, err error) {
	for {
		cmds, err := g.next(nil)
		if err != nil {
			return all, err
		}
		for _, c := range cmds {
			all = append(all, c.Args)
		}
	}
}

// framer is the obvious RESP reader that has everything in front of it: it is
// slow, and limits nothing but what Redis refuses.
type framer struct {
	rest []byte
	l    Limits
}

// next returns a command, nil for something ignored, or an error; io.EOF also
// for a command that is not complete.
func (f *framer) next() ([][]byte, error) {
	if len(f.rest) == 0 {
		return nil, io.EOF
	}
	if f.rest[0] != '*' {
		return f.inline()
	}
	n, err := f.number(errCount, math.MinInt64, int64(f.l.MaxArgs))
	if err != nil || n <= 0 {
		return nil, err
	}
	var args [][]byte
	for range n {
		if len(f.rest) == 0 {
			return nil, io.EOF
		}
		if f.rest[0] != '$' {
			return nil, protocolError("expected '$', got '" + string(f.rest[:1]) + "'")
		}
		size, err := f.number(errLength, 0, int64(f.l.MaxBulk))
		if err != nil {
			return nil, err
		}
		if len(f.rest) < int(size)+2 {
			return nil, io.EOF
		}
		if string(f.rest[size:size+2]) != "\r\n" {
			return nil, errLength
		}
		args = append(args, f.rest[:size])
		f.rest = f.rest[size+2:]
	}
	return args, nil
}

func (f *framer) inline() ([][]byte, error) {
	line, rest, found := bytes.Cut(f.rest, []byte("\n"))
	if len(line) > f.l.MaxInline {
		return nil, errInlineSize
	}
	if !found {
		return nil, io.EOF
	}
	words, ok := splitInline(bytes.TrimSuffix(line, []byte("\r")))
	switch {
	case !ok:
		return nil, errQuotes
	case len(words) > 0 && slices.Contains([]string{"post", "host:"}, strings.ToLower(string(words[0]))):
		return nil, errCrossProtocol
	}
	f.rest = rest
	return words, nil
}

// number reads the line with a number at the front.
func (f *framer) number(wrong error, lo, hi int64) (int64, error) {
	line, rest, found := bytes.Cut(f.rest, []byte("\r\n"))
	if !found {
		// What has come may already be impossible.
		text, ended := strings.CutSuffix(string(f.rest[1:]), "\r")
		n, err := strconv.ParseInt(text, 10, 64)
		canonical := err == nil && strconv.FormatInt(n, 10) == text && len(strings.TrimPrefix(text, "-")) <= 18
		if canonical || (!ended && (text == "" || text == "-" || text == "-0")) {
			return 0, io.EOF
		}
		return 0, wrong
	}
	n, err := strconv.ParseInt(string(line[1:]), 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != string(line[1:]) || n < lo || n > hi || n <= -1e18 {
		return 0, wrong
	}
	f.rest = rest
	return n, nil
}

func framed(data []byte, l Limits) (all [][][]byte, err error) {
	f := framer{data, l}
	for {
		args, err := f.next()
		if err != nil {
			return all, err
		}
		if len(args) > 0 {
			all = append(all, args)
		}
	}
}

func equalCommands(a, b [][][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y [][]byte) bool { return slices.EqualFunc(x, y, bytes.Equal) })
}

// compare fails when guard and redcon read data otherwise than the framer does.
func compareFraming(t *testing.T, data []byte, cut func(int) int, about string) {
	t.Helper()
	small := func(l *Limits) {
		l.MaxKey, l.MaxValue, l.MaxBulk, l.MaxArgs, l.MaxInline, l.MaxCommand = 64, 64, 6000, 400, 1*kib, 1*mib
	}
	g := newTestGuard(data, cut, small)
	got, gotErr := guarded(g)
	want, wantErr := framed(data, *g.limits)
	if gotErr.Error() != wantErr.Error() || !equalCommands(got, want) {
		t.Fatalf("%s: %.300q:\n got %.500q, %v\nwant %.500q, %v", about, data, got, gotErr, want, wantErr)
	}
}

// scraps are pieces of requests, good and bad, for random ones: the first five good, and
// too long for small limits the last. The others are hostile to a whole node, too.
var scraps = append(readScraps(), "*2\r\n$5000\r\n"+strings.Repeat("x", 5000)+"\r\n$5000\r\n"+strings.Repeat("y", 5000)+"\r\n")

func readScraps() (all []string) {
	text, err := os.ReadFile("testdata/scraps.txt")
	if err != nil {
		panic(err) // it lies beside this file
	}
	for line := range strings.Lines(string(text)) {
		scrap, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			panic(line)
		}
		all = append(all, scrap)
	}
	return all
}

func TestGuardReleasesExactlyTheCommandsOfAnObviousFramer(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		var data []byte
		for range 1 + rnd.IntN(8) {
			if scrap := scraps[rnd.IntN(len(scraps))]; rnd.IntN(20) == 0 {
				data = append(data, scrap[:1+rnd.IntN(len(scrap))]...)
			} else if rnd.IntN(3) > 0 {
				data = append(data, scraps[rnd.IntN(5)]...)
			} else {
				data = append(data, scrap...)
			}
		}
		for range rnd.IntN(3) {
			data[rnd.IntN(len(data))] = "*$-0123456789\r\n\"' aX\x00"[rnd.IntN(21)]
		}
		most := 1 + rnd.IntN(9000)
		compareFraming(t, data, func(int) int { return 1 + rnd.IntN(most) }, "seed "+strconv.FormatUint(seed, 10))
	}
}

func FuzzGuard(f *testing.F) {
	for _, scrap := range scraps {
		f.Add([]byte(scrap), uint16(1))
		f.Add([]byte(scraps[0]+scrap+scraps[1]), uint16(100))
	}
	f.Fuzz(func(t *testing.T, data []byte, most uint16) {
		compareFraming(t, data, func(int) int { return 1 + int(most) }, "fuzz")
	})
}

func TestGuardKeepsEachLimitExactly(t *testing.T) {
	change := func(l *Limits) {
		l.MaxKey, l.MaxValue, l.MaxBulk, l.MaxArgs, l.MaxInline, l.MaxCommand = 64, 64, 3000, 20, 2*kib, 5000
		l.MaxLoginBulk = 100
	}
	args := func(n int) string {
		return "*" + strconv.Itoa(n) + "\r\n" + strings.Repeat("$1\r\na\r\n", n)
	}
	bulk := func(sizes ...int) string {
		b := "*" + strconv.Itoa(len(sizes)) + "\r\n"
		for _, n := range sizes {
			b += "$" + strconv.Itoa(n) + "\r\n" + strings.Repeat("a", n) + "\r\n"
		}
		return b
	}
	inline := func(n int) string { return strings.Repeat("a", n) + "\n" }
	for _, c := range []struct {
		name string
		good string
		bad  string
		want error
		wary bool // before login
	}{
		{"args", args(20), args(21), errCount, false},
		{"bulk", bulk(3000), bulk(3001), errLength, false},
		{"command", bulk(3000, 4999-3000-len("*2\r\n$3000\r\n\r\n$1974\r\n")), bulk(3000, 5001-3000-len("*2\r\n$3000\r\n\r\n$1974\r\n")), errTooBig, false},
		{"inline", inline(2 * kib), inline(2*kib + 1), errInlineSize, false},
		{"args before login", args(10), args(11), errLoginCount, true},
		{"bulk before login", bulk(100), bulk(101), errLoginBulk, true},
		{"inline before login", inline(100), inline(101), errInlineSize, true},
	} {
		for _, cut := range []func(int) int{allAtOnce, oneByOne} {
			g := newTestGuard([]byte(c.good), cut, change)
			g.trust = !c.wary
			if cmds, err := guarded(g); len(cmds) != 1 || err != io.EOF {
				t.Errorf("%s at the limit: %d commands, %v", c.name, len(cmds), err)
			}
			g = newTestGuard([]byte(c.bad), cut, change)
			g.trust = !c.wary
			if cmds, err := guarded(g); len(cmds) != 0 || !errors.Is(err, c.want) {
				t.Errorf("%s past the limit: %d commands, %v, want %v", c.name, len(cmds), err, c.want)
			}
		}
	}
}

func TestGuardJudgesEachCommandBeforeLoginOnlyAfterTheOneBefore(t *testing.T) {
	data := append(encodeCommand([]string{"AUTH", "p"}), encodeCommand([]string{"SET", "k", strings.Repeat("x", 20*kib)})...)
	g := newTestGuard(data, allAtOnce)
	g.trust = false
	cmds, err := g.next(nil)
	if err != nil || len(cmds) != 1 {
		t.Fatalf("first: %d commands, %v", len(cmds), err)
	}
	g.trust = true // AUTH was right
	if cmds, err = g.next(nil); err != nil || len(cmds) != 1 {
		t.Errorf("after login: %d commands, %v", len(cmds), err)
	}
}

// allocated is the memory that f asks for.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestGuardAllocatesNothingOnTheWordOfAHeader(t *testing.T) {
	for _, data := range []string{"*1000000\r\n", "*1\r\n$16000000\r\n", "*1048576\r\n$1\r\na\r\n"} {
		used := allocated(func() {
			if cmds, err := guarded(newTestGuard([]byte(data), allAtOnce)); err != io.EOF || len(cmds) != 0 {
				t.Errorf("%q: %v", data, err)
			}
		})
		if used > 64*kib {
			t.Errorf("%q: %d bytes allocated", data, used)
		}
	}
}

func TestGuardTakesALongCommandByteByByteWithoutRescanning(t *testing.T) {
	// Redcon alone recurses once per read and would overflow the stack. A guard that
	// looks at all it has for each byte would take an hour, which no test run waits for.
	data := encodeCommand([]string{"SET", "k", strings.Repeat("x", 2*mib)})
	cmds, err := guarded(newTestGuard(data, oneByOne))
	if err != io.EOF || len(cmds) != 1 || len(cmds[0][2]) != 2*mib {
		t.Fatalf("%d commands, %v", len(cmds), err)
	}
}

func TestGuardRefusesWhenAllUnfinishedCommandsTogetherAreTooMuch(t *testing.T) {
	limits := Limits{MaxBulk: 1 * mib, MaxCommand: 2 * mib, MaxQuery: 4 * mib, MaxKey: 64, MaxValue: 64}
	shared := &budget{limit: limits.MaxQuery}
	data := []byte("*1\r\n$1000000\r\n" + strings.Repeat("x", 600_000))
	var held []*guard
	refused := 0
	for range 4 {
		g := newTestGuard(data, allAtOnce, func(l *Limits) { *l = limits })
		g.query = shared
		if _, err := guarded(g); errors.Is(err, errCrowded) {
			refused++
		}
		held = append(held, g)
		if used := shared.used.Load(); used > limits.MaxQuery {
			t.Fatalf("%d bytes held, the limit is %d", used, limits.MaxQuery)
		}
	}
	if refused == 0 || refused == 4 {
		t.Errorf("%d of 4 refused", refused)
	}
	for _, g := range held {
		g.release()
	}
	if used := shared.used.Load(); used != 0 {
		t.Errorf("%d bytes still taken after release", used)
	}
}

func TestGuardChargesManySmallArgumentsForWhatParsingThemTakes(t *testing.T) {
	data := []byte("*1000000\r\n" + strings.Repeat("$0\r\n\r\n", 900_000))
	g := newTestGuard(data, func(int) int { return 1000 })
	if _, err := guarded(g); err != io.EOF {
		t.Fatal(err)
	}
	if used := g.query.used.Load(); used < 400_000*argumentBytes {
		t.Errorf("%d bytes charged", used)
	}
}

func TestGuardGivesMemoryBackAfterALargeCommand(t *testing.T) {
	data := slices.Concat(encodeCommand([]string{"SET", "k", strings.Repeat("x", 1*mib)}), encodeCommand([]string{"PING"}))
	cut := func(left int) int { return max(1, left-14) } // PING comes by itself
	g := newTestGuard(data, cut)
	if cmds, _ := guarded(g); len(cmds) != 2 {
		t.Fatalf("%d commands", len(cmds))
	}
	if len(g.buf) > keepBuffer || g.query.used.Load() != 0 {
		t.Errorf("keeps %d bytes, %d charged", len(g.buf), g.query.used.Load())
	}
}

func TestGuardCutsARunOfSmallCommandsIntoBatches(t *testing.T) {
	ping := encodeCommand([]string{"PING"})
	g := newTestGuard(bytes.Repeat(ping, 100_000), allAtOnce)
	total := 0
	for {
		cmds, err := g.next(nil)
		if err != nil {
			break
		}
		if total += len(cmds); len(cmds)*len(ping) > 2*batchBytes {
			t.Fatalf("a batch of %d commands", len(cmds))
		}
	}
	if total != 100_000 {
		t.Errorf("%d commands", total)
	}
}

func TestInlineWordsAreSplitAsRedisSplitsThem(t *testing.T) {
	for line, want := range map[string][]string{
		``: nil, ` 	 `: nil, `a b`: {"a", "b"}, "a\tb": {"a", "b"}, `"a b" c`: {"a b", "c"}, `a"b c"`: {"ab c"},
		`"\x41\n\r\t\b\a\q\""`: {"A\n\r\t\b\aq\""}, `"\xZZ"`: {"xZZ"}, `'a\'b' 'c\n'`: {"a'b", `c\n`}, `""`: {""},
		"a\x00b": {"a"}, `a\ b`: {`a\`, "b"},
	} {
		words, ok := splitInline([]byte(line))
		got := make([]string, 0, len(words))
		for _, w := range words {
			got = append(got, string(w))
		}
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %t, want %q", line, got, ok, want)
		}
	}
	for _, line := range []string{`"a`, `'a`, `"a"b`, `'a'b`, `"a\`, `"`} {
		if words, ok := splitInline([]byte(line)); ok {
			t.Errorf("%q: %q, want unbalanced quotes", line, words)
		}
	}
}

func TestUnfinishedCommandIsCutOffAtItsDeadlineHoweverItTrickles(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		g := newTestGuard(nil, nil)
		g.conn = theirs
		began := time.Now()
		var trickle sync.WaitGroup
		defer trickle.Wait()
		trickle.Go(func() {
			for _, b := range encodeCommand([]string{"SET", "k", strings.Repeat("x", 1000)}) {
				time.Sleep(time.Second)
				if _, err := ours.Write([]byte{b}); err != nil {
					return
				}
			}
		})
		_, err := guarded(g)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(began); d > g.limits.ReadTimeout+2*time.Second {
			t.Errorf("cut off after %v", d)
		}
		_ = theirs.Close()
	})
}

func TestIdleConnectionIsKeptByDefaultAndClosedWhenAsked(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for _, idle := range []time.Duration{0, time.Minute} {
			ours, theirs := net.Pipe()
			g := newTestGuard(nil, nil, func(l *Limits) { l.IdleTimeout = idle })
			g.conn = theirs
			began := time.Now()
			ended := make(chan time.Duration, 1)
			go func() {
				_, _ = guarded(g)
				ended <- time.Since(began)
			}()
			select {
			case d := <-ended:
				if idle == 0 || d != idle {
					t.Errorf("idle timeout %v: closed after %v", idle, d)
				}
			case <-time.After(24 * time.Hour):
				if idle != 0 {
					t.Errorf("idle timeout %v: still open after a day", idle)
				}
			}
			_ = ours.Close()
			_ = theirs.Close()
		}
	})
}

// arrivals is a connection on which a client has more to say than the server has room
// for, or with few set one command at a time.
type arrivals struct {
	pieces
	at, largest int
	few         bool
}

func (a *arrivals) Read(b []byte) (int, error) {
	ping := encodeCommand([]string{"PING"})
	a.largest = max(a.largest, len(b))
	if left := len(ping) - a.at%len(ping); a.few {
		b = b[:left]
	}
	n := copy(b, bytes.Repeat(ping, len(b)/len(ping)+2)[a.at%len(ping):])
	a.at += n
	return n, nil
}

func TestGuardReadsAPipelineInLargePiecesAndGivesTheMemoryBack(t *testing.T) {
	conn := &arrivals{}
	g := newTestGuard(nil, allAtOnce)
	g.conn = conn
	take := func() {
		t.Helper()
		if cmds, err := g.next(nil); len(cmds) == 0 || err != nil {
			t.Fatalf("%d commands, %v", len(cmds), err)
		}
	}
	for range 40 {
		take()
	}
	if conn.largest > pipelineBuffer || len(g.buf) != pipelineBuffer || g.charged != (pipelineBuffer-keepBuffer)*copies {
		t.Errorf("reads up to %d bytes into %d, %d charged", conn.largest, len(g.buf), g.charged)
	}
	conn.few = true // the client waits for each answer from now on
	for g.more() {
		take()
	}
	for range 10 {
		take()
	}
	if len(g.buf) > keepBuffer || g.query.used.Load() != 0 {
		t.Errorf("keeps %d bytes, %d charged", len(g.buf), g.query.used.Load())
	}
}

// Nobody is closed, and no large command refused, for buffers that are only faster.
func TestGuardLeavesHalfOfTheBudgetToLargeCommands(t *testing.T) {
	shared := &budget{limit: 4 * pipelineBuffer * copies}
	var all []*guard
	for range 100 {
		g := newTestGuard(nil, allAtOnce)
		g.conn, g.query = &arrivals{}, shared
		all = append(all, g)
	}
	for range 100 {
		for i, g := range all {
			if cmds, err := g.next(nil); len(cmds) == 0 || err != nil {
				t.Fatalf("connection %d: %d commands, %v", i, len(cmds), err)
			}
		}
	}
	if used := shared.used.Load(); used < shared.limit/4 || used > shared.limit/2+pipelineBuffer*copies {
		t.Errorf("%d bytes of %d are charged for pipelines", used, shared.limit)
	}
}
