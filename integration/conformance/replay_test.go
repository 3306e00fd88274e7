package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A server is one of those whose answers are compared.
type server struct {
	name  string
	dial  func() (net.Conn, error) // the door that the corpus is for
	plain func() (net.Conn, error) // the door on which everything can be deleted
}

// What stands for an answer that did not come. patience is for broken servers,
// not for slow machines.
const (
	isClosed = "(closed)"
	isOpen   = "(open)"
	isSilent = "(no answer)"
	patience = 30 * time.Second
)

// A wire is one connection of a scenario.
type wire struct {
	net.Conn
	r *bufio.Reader
}

func newWire(dial func() (net.Conn, error)) (*wire, error) {
	nc, err := dial()
	if err != nil {
		return nil, err
	}
	return &wire{nc, bufio.NewReader(nc)}, nil
}

// encode is a request as clients send it.
func encode(words []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

func (w *wire) send(text string) {
	_ = w.SetDeadline(time.Now().Add(patience)) // a dead connection shows itself when it is read
	_, _ = io.WriteString(w, text)              // the same
}

// reply reads one reply. One that breaks off is shown as far as it came.
func (w *wire) reply(loose bool) string {
	v, err := readValue(w.r)
	if err != nil {
		return v.String() + ending(err)
	}
	if loose {
		v = v.sorted()
	}
	return v.String()
}

func ending(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return isSilent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)):
		return isClosed
	}
	return "(" + err.Error() + ")"
}

// sentinel is asked for behind raw bytes: what comes before its echo answers them.
const sentinel = "that was all of it"

// rest sends text and the sentinel in one piece, so that nothing is under way any
// more when the server closes, and reads up to the echo or the end.
func (w *wire) rest(text string) string {
	w.send(text + encode([]string{"ECHO", sentinel}))
	var b strings.Builder
	for {
		v, err := readValue(w.r)
		if err != nil {
			b.WriteString(v.String() + ending(err))
			return b.String()
		}
		if strings.HasSuffix(v.head, "\r\n"+sentinel+"\r\n") {
			return b.String()
		}
		v.write(&b)
	}
}

// walk follows the cursor of SCAN to the end and answers the distinct keys.
func (w *wire) walk(words []string) string {
	met := map[string]bool{}
	for cursor := ""; cursor != "0"; {
		next := slices.Clone(words)
		if cursor != "" {
			next[1] = cursor
		}
		w.send(encode(next))
		v, err := readValue(w.r)
		if err != nil || len(v.list) != 2 {
			return v.String() + "(no page)"
		}
		_, cursor, _ = strings.Cut(strings.TrimSuffix(v.list[0].head, "\r\n"), "\r\n")
		for _, key := range v.list[1].list {
			met[key.head] = true
		}
	}
	var keys []string
	for key := range met {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return strings.Join(keys, "")
}

// state asks for a word that an open connection answers.
func (w *wire) state() string {
	w.send(encode([]string{"ECHO", sentinel}))
	if v, err := readValue(w.r); err != nil {
		return ending(err)
	} else if !strings.Contains(v.head, sentinel) {
		return isOpen + v.String()
	}
	return isOpen
}

// A player plays scenarios to one server.
type player struct {
	server server
	wires  [2]*wire
}

// play notes the reply to every step of the corpus by the step's key.
func (p *player) play(corpus []scenario, replies map[string]string) error {
	for i := range corpus {
		if err := p.scenario(&corpus[i], replies); err != nil {
			return fmt.Errorf("%s: %s: %w", p.server.name, corpus[i].name, err)
		}
	}
	return nil
}

// sweep deletes everything.
func (p *player) sweep() error {
	w, err := newWire(p.server.plain)
	if err != nil {
		return err
	}
	defer w.Close()
	w.send(encode([]string{"FLUSHALL"}))
	if got := w.reply(false); got != "+OK\r\n" {
		return fmt.Errorf("FLUSHALL before it: %q", got)
	}
	return nil
}

func (p *player) scenario(sc *scenario, replies map[string]string) error {
	if err := p.sweep(); err != nil {
		return err
	}
	defer p.hangUp()
	var asked []*step // pipelined, not yet answered
	var pipeline strings.Builder
	for i := range sc.steps {
		s := &sc.steps[i]
		w, err := p.wire(s.conn)
		if err != nil {
			return err
		}
		words, err := p.filled(s.words)
		if err != nil {
			return err
		}
		if len(asked) > 0 && (s.kind > queued || s.conn != asked[0].conn) {
			return fmt.Errorf("%s: in the middle of a pipeline", s.key)
		}
		switch s.kind {
		case request, queued:
			asked = append(asked, s)
			pipeline.WriteString(encode(words))
			if s.kind == queued {
				continue
			}
			w.send(pipeline.String())
			for _, q := range asked {
				replies[q.key] = w.reply(q.loose)
			}
			asked = nil
			pipeline.Reset()
		case mute:
			w.send(encode(words))
		case part:
			w.send(s.bytes)
		case raw:
			replies[s.key] = w.rest(s.bytes)
		case walk:
			replies[s.key] = w.walk(words)
		case next:
			w.send("")
			replies[s.key] = w.reply(s.loose)
		case closed:
			replies[s.key] = w.state()
		case wait:
			time.Sleep(s.pause)
		case resp3:
			w.send(encode([]string{"HELLO", "3"}))
			_ = w.reply(false) // scenarios of HELLO look at it
		case renew:
			_ = w.Close() // given up on purpose
			p.wires[s.conn] = nil
		}
	}
	if len(asked) > 0 {
		return fmt.Errorf("%s: the end of a pipeline", asked[0].key)
	}
	return nil
}

// wire is connection i, opened at its first use.
func (p *player) wire(i int) (*wire, error) {
	if p.wires[i] == nil {
		w, err := newWire(p.server.dial)
		if err != nil {
			return nil, err
		}
		p.wires[i] = w
	}
	return p.wires[i], nil
}

// filled puts ids and addresses of the connections where words name them.
func (p *player) filled(words []string) ([]string, error) {
	out := slices.Clone(words)
	for i, word := range out {
		for c := range p.wires {
			for place, ask := range map[string]func(*wire) (string, error){
				"{id" + strconv.Itoa(c+1) + "}":   clientID,
				"{addr" + strconv.Itoa(c+1) + "}": func(w *wire) (string, error) { return w.LocalAddr().String(), nil },
			} {
				if !strings.Contains(word, place) {
					continue
				}
				w, err := p.wire(c)
				if err != nil {
					return nil, err
				}
				text, err := ask(w)
				if err != nil {
					return nil, err
				}
				out[i] = strings.ReplaceAll(out[i], place, text)
			}
		}
	}
	return out, nil
}

func clientID(w *wire) (string, error) {
	w.send(encode([]string{"CLIENT", "ID"}))
	v, err := readValue(w.r)
	return strings.Trim(v.head, ":\r\n"), err
}

func (p *player) hangUp() {
	for i, w := range p.wires {
		if w != nil {
			_ = w.Close() // the server may have been faster
		}
		p.wires[i] = nil
	}
}
