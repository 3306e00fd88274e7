package resp

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const serverTranscript = "testdata/redis7-server.transcript"

// varying are the parts of replies that differ between any two servers.
var varying = regexp.MustCompile(`\$3\r\nfoo|id\r\n:\d+|\$\d+\r\n7\.\d+\.\d+`)

// TestServerCommandsAnswerAsRedis replays commands about connection and server
// that redis-server 7.0.15 answered; each line begins a "> command" or a "=="
// section on a new connection, and "<" is the reply recorded.
func TestServerCommandsAnswerAsRedis(t *testing.T) {
	if *oracle {
		refreshServerTranscript(t)
	}
	text, err := os.ReadFile(serverTranscript)
	if err != nil {
		t.Fatal(err)
	}
	var c *dataWire
	section, command, got, compared := "", "", "", 0
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		switch mark, rest, _ := strings.Cut(line, " "); mark {
		case "==":
			section, c = rest, openDoor(t).connect()
		case ">":
			command, got = rest, c.do(transcriptWords(t, rest)...)
		case "<":
			want, err := strconv.Unquote(rest)
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			compared++
			if varying.ReplaceAllString(got, "") != varying.ReplaceAllString(want, "") {
				t.Errorf("line %d (%s): %s:\n got %.400q\nwant %.400q", i+1, section, command, got, want)
			}
		}
	}
	if compared < 120 {
		t.Errorf("only %d commands compared", compared)
	}
}

func refreshServerTranscript(t *testing.T) {
	text, err := os.ReadFile(serverTranscript)
	if err != nil {
		t.Fatal(err)
	}
	dial := startRedis(t)
	var c *dataWire
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		if mark == "<" {
			continue
		}
		fmt.Fprintln(&out, line)
		switch mark {
		case "==":
			c = newDataWire(t, dial())
		case ">":
			fmt.Fprintln(&out, "<", strconv.QuoteToASCII(c.do(transcriptWords(t, rest)...)))
		}
	}
	if err := os.WriteFile(serverTranscript, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unlikeRedis are rows that differ from Redis 7.0.15 on purpose, or that it does
// not have.
var unlikeRedis = map[string]bool{
	"client|no-touch": true, "client|setinfo": true, // of 7.2
}

const commandGolden = "testdata/redis7-commands.golden"

// TestRowsDescribeThemselvesAsRedisDoes compares COMMAND INFO of every row that
// Redis 7.0.15 has too: arity, flags, keys, categories, tips, key specification.
func TestRowsDescribeThemselvesAsRedisDoes(t *testing.T) {
	table, err := newTable(commands())
	if err != nil {
		t.Fatal(err)
	}
	if *oracle {
		refreshCommandGolden(t, table)
	}
	text, err := os.ReadFile(commandGolden)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		name, quoted, _ := strings.Cut(line, " ")
		reply, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want[name] = reply
	}
	compared := 0
	table.each(func(row *command) {
		expected := want[row.full]
		if expected == "" || unlikeRedis[row.full] {
			return
		}
		compared++
		w := Reply{proto: 3}
		shown := *row
		shown.subcommands = nil // compared by themselves
		shown.describe(&w)
		if got := string(w.buf); got != expected {
			t.Errorf("%s:\n got %q\nwant %q", row.full, got, expected)
		}
	})
	if compared < 90 {
		t.Errorf("only %d rows compared", compared)
	}
}

func refreshCommandGolden(t *testing.T, table *table) {
	c := newDataWire(t, startRedis(t)())
	c.do("HELLO", "3")
	var out strings.Builder
	table.each(func(row *command) {
		reply := strings.TrimPrefix(c.do("COMMAND", "INFO", row.full), "*1\r\n")
		if reply == "_\r\n" {
			return
		}
		if len(row.subcommands) > 0 {
			reply = reply[:5] + nested.ReplaceAllString(reply[5:], "~0\r\n")
		}
		fmt.Fprintln(&out, row.full, strconv.QuoteToASCII(notes.ReplaceAllString(reply, "%3\r\n")))
	})
	if err := os.WriteFile(commandGolden, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nested is the tenth element of a container's entry; notes is prose that Redis
// adds to some key specifications, which ours do without.
var (
	nested = regexp.MustCompile(`(?s)\*\d+\r\n\*10\r\n.*`)
	notes  = regexp.MustCompile(`%4\r\n\$5\r\nnotes\r\n\$\d+\r\n[^\r]*\r\n`)
)
