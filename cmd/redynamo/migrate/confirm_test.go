package migrate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// scripted is a server that answers each command with the next of its answers; it knows
// no others.
type scripted struct {
	listener net.Listener
	mu       struct {
		sync.Mutex
		answers map[string][]string // by command, as they are sent
		heard   []string            // the commands that had one
	}
}

func startScripted(t *testing.T, answers map[string][]string) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{listener: l}
	s.mu.answers = answers
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	return s
}

func (s *scripted) serve(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		words, err := readCommand(in)
		if err != nil {
			break
		}
		if _, err := io.WriteString(c, s.answer(strings.Join(words, " "))); err != nil {
			break
		}
	}
	_ = c.Close() // the client has left
}

func (s *scripted) answer(command string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := s.mu.answers[command]
	if len(answers) == 0 {
		if strings.EqualFold(command, "info redynamo") {
			return "$0\r\n\r\n"
		}
		return "-ERR unknown command\r\n"
	}
	s.mu.heard = append(s.mu.heard, command)
	s.mu.answers[command] = answers[1:]
	return answers[0]
}

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) (words []string, err error) {
	number := func() int {
		line, failed := in.ReadString('\n')
		if err = errors.Join(err, failed); err != nil {
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line[1:])) // a client's own
		return n
	}
	for range number() {
		word := make([]byte, number()+2)
		if _, failed := io.ReadFull(in, word); failed != nil || err != nil {
			return nil, errors.Join(err, failed)
		}
		words = append(words, string(word[:len(word)-2]))
	}
	return words, err
}

// TestWhatNobodyAcknowledgedIsWrittenOnceMore says what follows when a SET NX was not
// acknowledged, and the next one finds the key there.
func TestWhatNobodyAcknowledgedIsWrittenOnceMore(t *testing.T) {
	const (
		set       = "SET k v PXAT 4000000000000 NX"
		get       = "VCTX.GET k"
		again     = "VCTX.SET k v tok PXAT 4000000000000"
		keep      = "VCTX.SET k v tok KEEPTTL"
		uncertain = "-UNCERTAIN acked 1/2\r\n"
		there     = "$-1\r\n"
		done      = "*2\r\n$3\r\ntok\r\n:1\r\n"
	)
	read := func(values ...string) string {
		out := fmt.Sprintf("*2\r\n$3\r\ntok\r\n*%d\r\n", len(values))
		for _, v := range values {
			out += fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
		}
		return out
	}
	for name, c := range map[string]struct {
		doubt   bool
		answers map[string][]string
		heard   []string
		kept    bool
	}{
		"it is there": {false, map[string][]string{set: {uncertain, there}, get: {read("v")}, keep: {done}},
			[]string{set, set, get, keep}, false},
		"it is there twice": {false, map[string][]string{set: {uncertain, there}, get: {read("v", "v")}, keep: {done}},
			[]string{set, set, get, keep}, false},
		"a quorum does not see it": {false, map[string][]string{set: {uncertain, there}, get: {read()}, again: {done}},
			[]string{set, set, get, again}, false},
		"a client's is there": {false, map[string][]string{set: {uncertain, there}, get: {read("w")}},
			[]string{set, set, get}, true},
		"a client's is beside it": {false, map[string][]string{set: {uncertain, there}, get: {read("v", "w")}},
			[]string{set, set, get}, true},
		"nor was that": {false, map[string][]string{set: {uncertain, there, there}, get: {read("v"), read("v")}, keep: {uncertain, done}},
			[]string{set, set, get, keep, set, get, keep}, false},
		"nor could it be read": {false, map[string][]string{set: {uncertain, there, there}, get: {"-NOREPLICAS x\r\n", read("v")}, keep: {done}},
			[]string{set, set, get, set, get, keep}, false},
		"a Redis": {false, map[string][]string{set: {uncertain, there}},
			[]string{set, set}, true},
		"nothing was written before": {false, map[string][]string{set: {"-NOREPLICAS x\r\n", there}},
			[]string{set, set}, true},
		"by an import before": {true, map[string][]string{set: {there}, get: {read("v")}, keep: {done}},
			[]string{set, get, keep}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScripted(t, c.answers)
			to := Endpoint{Addrs: []string{s.listener.Addr().String()}}
			cl := to.client(to.Addrs[0], 1, 0, nil)
			defer func() { _ = cl.Close() }() // the test is over
			w := &worker{cfg: &Config{To: to, Patience: time.Minute}, clients: []*redis.Client{cl}, doubt: c.doubt}
			outcomes := make([]outcome, 1)
			it := &item{kind: "string", key: []byte("k"), value: []byte("v"), expireAtMS: 4_000_000_000_000}
			if err := w.write(t.Context(), []*item{it}, outcomes); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if outcomes[0] != (outcome{kept: c.kept}) || !slices.Equal(s.mu.heard, c.heard) {
				t.Errorf("%+v after\n%q, want\n%q", outcomes[0], s.mu.heard, c.heard)
			}
		})
	}
}
