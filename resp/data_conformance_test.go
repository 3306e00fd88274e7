package resp

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var oracle = flag.Bool("oracle", false, "refresh testdata/redis7.transcript from the redis-server 7.0.15 that is installed")

const transcriptPath = "testdata/redis7.transcript"

// transcriptStep is one command line of the transcript, or one directive.
type transcriptStep struct {
	line      int
	mark      string // ">", "%>", "~", "@" or "=="
	tolerance int64  // of "~"
	args      []string
	reply     int // index of the line with the recorded reply
	want      string
}

// repeated is (N*X) in a word.
var repeated = regexp.MustCompile(`\((\d+)\*([^)]+)\)`)

// transcriptWords splits a command line.
func transcriptWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			word = repeated.ReplaceAllStringFunc(word, func(m string) string {
				parts := repeated.FindStringSubmatch(m)
				n, _ := strconv.Atoi(parts[1])
				return strings.Repeat(parts[2], n)
			})
			words, line = append(words, word), rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		words, line = append(words, word), line[len(quoted):]
	}
	return words
}

// readTranscript returns the lines without recorded replies, and the steps.
func readTranscript(t *testing.T) (lines []string, steps []transcriptStep) {
	t.Helper()
	text, err := os.ReadFile(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		if mark == "<" {
			want, err := strconv.Unquote(rest)
			if err != nil || len(steps) == 0 {
				t.Fatalf("line %d: bad reply: %v", i+1, err)
			}
			steps[len(steps)-1].want = want
			continue
		}
		lines = append(lines, line)
		s := transcriptStep{line: i + 1, mark: mark, reply: len(lines)}
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(mark, "~"):
			s.mark = "~"
			if s.tolerance, err = strconv.ParseInt(strings.Trim(mark, "~>"), 10, 64); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		}
		s.args = transcriptWords(t, rest)
		steps = append(steps, s)
	}
	return lines, steps
}

// same compares two replies the way the step allows.
func (s *transcriptStep) same(got, want string) bool {
	switch s.mark {
	case "~":
		g, errG := strconv.ParseInt(strings.Trim(got, ":\r\n"), 10, 64)
		w, errW := strconv.ParseInt(strings.Trim(want, ":\r\n"), 10, 64)
		return errG == nil && errW == nil && max(g-w, w-g) <= s.tolerance
	case "%>":
		return sortedElements(got) == sortedElements(want)
	}
	return got == want
}

// sortedElements sorts the lines behind the headers: enough to compare arrays
// of bulk strings in any order, with lengths and bytes still in the comparison.
func sortedElements(raw string) string {
	lines := strings.SplitAfter(raw, "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestDataCommandsAnswerAsRedis replays the transcript against our handlers.
func TestDataCommandsAnswerAsRedis(t *testing.T) {
	if *oracle {
		refreshTranscript(t)
	}
	var d *dataDoor
	var c *dataWire
	compared, section := 0, ""
	_, steps := readTranscript(t)
	for _, s := range steps {
		switch {
		case s.mark == "==":
			d = newDataDoor(t)
			c, section = d.connect(), strings.Join(s.args, " ")
		case s.mark == "@" && s.args[0] == "wait":
			d.clock.advance(waitOf(t, s))
		case s.mark == "@" && s.args[0] == "resp3":
			c.do("HELLO", "3")
		default:
			compared++
			if got := c.do(s.args...); !s.same(got, s.want) {
				t.Errorf("line %d (%s): %.100q:\n got %.300q\nwant %.300q", s.line, section, s.args, got, s.want)
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d commands compared", compared)
	}
}

func waitOf(t *testing.T, s transcriptStep) time.Duration {
	ms, err := strconv.Atoi(s.args[1])
	if err != nil {
		t.Fatalf("line %d: %v", s.line, err)
	}
	return time.Duration(ms) * time.Millisecond
}

// refreshTranscript replays the commands against redis-server and writes its
// replies down.
func refreshTranscript(t *testing.T) {
	dial := startRedis(t)
	admin := newDataWire(t, dial())
	if info := admin.do("INFO", "server"); !strings.Contains(info, "redis_version:7.0.15\r\n") {
		t.Fatalf("the oracle must be redis-server 7.0.15, this is %.200q", info)
	}
	lines, steps := readTranscript(t)
	replies := make(map[int]string)
	var c *dataWire
	for _, s := range steps {
		switch {
		case s.mark == "==":
			admin.do("FLUSHALL")
			c = newDataWire(t, dial())
		case s.mark == "@" && s.args[0] == "wait":
			// Redis itself waits, on a list that nobody fills.
			admin.do("BLPOP", "no such list", fmt.Sprint(waitOf(t, s).Seconds()))
		case s.mark == "@" && s.args[0] == "resp3":
			c.do("HELLO", "3")
		default:
			replies[s.reply] = c.do(s.args...)
		}
	}
	var out strings.Builder
	for i, line := range lines {
		fmt.Fprintln(&out, line)
		if r, ok := replies[i+1]; ok {
			fmt.Fprintln(&out, "<", strconv.QuoteToASCII(r))
		}
	}
	if err := os.WriteFile(transcriptPath, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startRedis starts a redis-server of the test's own on a socket in a temporary
// directory.
func startRedis(t *testing.T) (dial func() net.Conn) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--dir", dir,
		"--save", "", "--appendonly", "no")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	for log := bufio.NewScanner(out); log.Scan(); {
		if strings.Contains(log.Text(), "accept connections at "+socket) {
			break
		}
	}
	return func() net.Conn {
		nc, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
}
